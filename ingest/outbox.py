"""The only user of the Kafka producer: sends dead letters to the topic `<topic>.dlq`.

A batch commits its dead letters and a row in `ingest.outbox` for each. This thread sends them
afterwards, at least once: the same key and value bytes (so the same schema id), the record's own
headers, and what we know of it. A receiver drops repeats by `viewkeeper-id`. Nothing here can hold
up ingest: without the topic, or the right to it, the rows wait and a warning says so.
"""

import base64
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from psycopg import Connection

from ingest import watermarks
from ingest.connect import APPLICATION, connect, translated
from ingest.errors import BatchRefusedError, RefusedError, TransientError
from ingest.failpoints import IN_OUTBOX, reached
from ingest.metrics import METRICS

_log = structlog.get_logger(__name__)

SUFFIX = ".dlq"
SEND_AT_ONCE = 200
LOOK_EVERY_S = 1.0
DELIVERY_S = 15.0
"""Shorter than the session's idle timeout: the rows stay locked until the broker has answered."""
SENT_KEPT = "7 days"
_CLEAN_EVERY_S = 3_600.0
_BACKOFF_MOST_S = 60.0
_BROKER_TIMEOUT_S = 5.0
_HEADERS_ROOM_BYTES = 65_536

_FLUSH_STEP_S = 0.2
_HOPELESS = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_RECORD,
    KafkaError.POLICY_VIOLATION,
}
"""The broker refuses this one letter and will refuse it again; the others are not to wait."""

Row = tuple[Any, ...]
Headers = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A dead letter that is to be sent."""

    id: int
    topic: str
    topic_id: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, str | None]] | None
    reason: str
    attempts: int

    def to_send(self) -> Headers:
        """The record's own headers, and ours behind them."""
        own: Headers = [
            (name, None if value is None else base64.b64decode(value))
            for name, value in self.headers or ()
        ]
        return [
            *own,
            ("viewkeeper-id", f"{self.topic_id}:{self.partition}:{self.offset}"),
            ("viewkeeper-reason", self.reason),
            ("viewkeeper-topic", self.topic),
            ("viewkeeper-partition", str(self.partition)),
            ("viewkeeper-offset", str(self.offset)),
            ("viewkeeper-attempts", str(self.attempts)),
        ]


@dataclass(slots=True)
class _Turn:
    """What the broker said of the letters of one turn."""

    delivered: list[int] = field(default_factory=list)
    hopeless: dict[int, str] = field(default_factory=dict)
    problem: str | None = None

    def answer(self, letter: Waiting, error: KafkaError | None) -> None:
        if error is None:
            self.delivered.append(letter.id)
        elif error.code() in _HOPELESS:
            self.hopeless[letter.id] = error.str()
        else:
            self.problem = error.str()


class Outbox:
    """Sends what waits, on a thread of its own, while inside `with`.

    `may_create`: whether a missing `<topic>.dlq` is created. Several workers may run: each locks
    the rows that it sends, and passes over those that are locked.
    """

    def __init__(
        self,
        dsn: str,
        owner: str,
        *,
        producer_options: Mapping[str, str],
        admin_options: Mapping[str, str],
        may_create: bool,
    ) -> None:
        self._dsn = dsn
        self._application = f"{APPLICATION} {owner} outbox"
        self._producer_options = {
            **producer_options,
            "enable.idempotence": "true",
            "acks": "all",
            "message.timeout.ms": str(int(DELIVERY_S * 1000)),
            "message.max.bytes": "100000000",
        }
        self._admin_options = dict(admin_options)
        self._may_create = may_create
        self._connection: Connection[Row] | None = None
        self._producer: Producer | None = None
        self._topics: set[str] = set()
        self._passed_over: set[int] = set()
        self._problem: str | None = None
        self._clean_in_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join(timeout=DELIVERY_S)

    def _run(self) -> None:
        wait_s = LOOK_EVERY_S
        while not self._stop.wait(wait_s):
            try:
                while self.turn() == SEND_AT_ONCE and not self._stop.is_set():
                    pass
                self._clean(wait_s)
                self._problem, wait_s = None, LOOK_EVERY_S
            except (TransientError, BatchRefusedError, RefusedError, KafkaException) as error:
                self._topics.clear()
                self._say(error)
                wait_s = min(_BACKOFF_MOST_S, wait_s * 2)
        self.close()

    def turn(self) -> int:
        """Send at most SEND_AT_ONCE letters and note what was delivered; how many there were.

        TransientError: the database is away, or the topic is missing and may not be created.
        """
        with translated():
            try:
                with self._open().transaction():
                    letters = self._next()
                    sent = self._send(letters) if letters else _Turn()
                    if sent.delivered:
                        reached(IN_OUTBOX)
                    self._note(sent.delivered)
            except psycopg.Error:
                self._close_connection()
                raise
        self._look_at_refused(letters, sent)
        return len(letters)

    def _open(self) -> Connection[Row]:
        if self._connection is None:
            self._connection = connect(self._dsn, self._application)
            self._connection.autocommit = True
            self._connection.execute("SET idle_in_transaction_session_timeout = '60s'")
        return self._connection

    def _next(self) -> list[Waiting]:
        rows = self._open().execute(
            'SELECT d.id, d.topic, d.topic_id, d.partition, d."offset", d.key, d.value, d.headers,'
            " d.reason, d.attempts FROM ingest.outbox o"
            " JOIN ingest.dead_letters d ON d.id = o.dead_letter_id"
            " WHERE o.sent_at IS NULL AND NOT o.dead_letter_id = ANY(%s)"
            f" ORDER BY o.dead_letter_id LIMIT {SEND_AT_ONCE} FOR UPDATE OF o SKIP LOCKED",
            (sorted(self._passed_over),),
        )
        return [_waiting(row) for row in rows]

    def _send(self, letters: Sequence[Waiting]) -> _Turn:
        for topic in {letter.topic for letter in letters}:
            self._have_topic(topic)
        if self._producer is None:
            # One letter a batch: a broker refuses a batch as a whole for one that is too large.
            options: dict[str, Any] = {
                "batch.num.messages": 1,
                **self._producer_options,
                **_QUIET,
            }
            self._producer = Producer(options)
        turn = _Turn()
        for letter in letters:
            self._producer.produce(
                f"{letter.topic}{SUFFIX}",
                letter.value,
                letter.key,
                headers=letter.to_send(),
                on_delivery=_delivered(turn, letter),
            )
        self._flush(self._producer)
        return turn

    def _flush(self, producer: Producer) -> None:
        """Wait for the broker's answers, or until told to stop: what has none is sent again."""
        until_s = time.monotonic() + DELIVERY_S
        while producer.flush(_FLUSH_STEP_S) and time.monotonic() < until_s:
            if self._stop.is_set():
                return

    def _note(self, delivered: Sequence[int]) -> None:
        if delivered:
            self._open().execute(
                "UPDATE ingest.outbox SET sent_at = now() WHERE dead_letter_id = ANY(%s)",
                (list(delivered),),
            )

    def _look_at_refused(self, letters: Sequence[Waiting], turn: _Turn) -> None:
        """Count what was sent, and pass over what never will be."""
        for letter in letters:
            if letter.id in turn.delivered:
                METRICS.dead_letters_sent.labels(letter.topic).inc()
        for letter_id, reason in turn.hopeless.items():
            _log.warning(
                "dead letter not sent; tried again after the next start",
                dead_letter=letter_id,
                reason=reason,
            )
        self._passed_over |= turn.hopeless.keys()
        short = len(turn.delivered) + len(turn.hopeless) < len(letters)
        if short and not self._stop.is_set():
            self._producer = None
            raise TransientError(f"the broker takes no dead letters: {turn.problem or 'no answer'}")

    def _have_topic(self, topic: str) -> None:
        """The producer would have the broker create it with its own settings; so look first."""
        name = f"{topic}{SUFFIX}"
        if name in self._topics:
            return
        admin = AdminClient({**self._admin_options, **_QUIET})
        if not watermarks.topic_ids(admin, [name], _BROKER_TIMEOUT_S):
            if not self._may_create:
                raise TransientError(
                    f"topic {name} is missing: dead letters wait in ingest.outbox until you create"
                    " it, or allow it with VIEWKEEPER_CREATE_DEAD_LETTER_TOPICS=true"
                )
            self._create(admin, topic)
        self._topics.add(name)

    def _create(self, admin: AdminClient, topic: str) -> None:
        source = watermarks.topic_ids(admin, [topic], _BROKER_TIMEOUT_S)
        largest = watermarks.topic_config(admin, topic, _BROKER_TIMEOUT_S).get("max.message.bytes")
        new = NewTopic(
            f"{topic}{SUFFIX}",
            num_partitions=source[topic].partitions if topic in source else 1,
            replication_factor=-1,
            config={
                "cleanup.policy": "delete",
                # Our headers come on top of a record that may be as large as its topic allows.
                "max.message.bytes": str(int(largest or 1_048_588) + _HEADERS_ROOM_BYTES),
            },
        )
        try:
            admin.create_topics([new])[new.topic].result(_BROKER_TIMEOUT_S)
        except (KafkaException, TimeoutError) as error:
            reason = error.args[0] if isinstance(error, KafkaException) else None
            if reason is not None and reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            words = reason.str() if reason is not None else "no answer in time"
            raise TransientError(
                f"topic {new.topic} is missing and can't be created ({words}): dead letters wait in"
                " ingest.outbox until you create it"
            ) from error
        _log.info("created", topic=new.topic)

    def _clean(self, passed_s: float) -> None:
        """Now and then remove what was sent a while ago; the dead letters themselves stay."""
        self._clean_in_s -= passed_s
        if self._clean_in_s > 0:
            return
        self._clean_in_s = _CLEAN_EVERY_S
        with translated():
            self._open().execute(
                f"DELETE FROM ingest.outbox WHERE sent_at < now() - interval '{SENT_KEPT}'"
            )

    def _say(self, error: Exception) -> None:
        if str(error) != self._problem:
            _log.warning("dead letters are not sent", reason=str(error))
            self._problem = str(error)

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def close(self) -> None:
        """Let go of both servers; what the producer still holds is sent again."""
        self._close_connection()
        self._producer = None


def _waiting(row: Row) -> Waiting:
    letter_id, topic, topic_id, partition, offset, key, value, headers, reason, attempts = row
    return Waiting(
        id=letter_id,
        topic=topic,
        topic_id=topic_id,
        partition=partition,
        offset=offset,
        key=key,
        value=value,
        headers=headers,
        reason=reason,
        attempts=attempts,
    )


def _delivered(turn: _Turn, letter: Waiting) -> Any:
    def delivered(error: KafkaError | None, _message: Message) -> None:
        turn.answer(letter, error)

    return delivered


def _ignore(_error: KafkaError) -> None:
    """What matters comes with each delivery."""


_QUIET: dict[str, Any] = {"error_cb": _ignore, "log_level": 0}
