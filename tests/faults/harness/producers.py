"""Producers that keep a ledger: what was acknowledged, what is unknown, what was aborted (I3).

Stands apart because the ledger is what the log is held against; the traffic itself comes from
`tests/fixtures/traffic.py`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tests.faults.oracle import Record as Logged
from tests.fixtures.traffic import Record

ABORTED = "aborted-"
"""Orders whose every event is in a transaction that was aborted: their ids begin like this."""
_FLUSH_S = 90.0
_What = tuple[str, bytes | None, bytes | None]
First = dict[tuple[str, int], int]


@dataclass(slots=True)
class Ledger:
    """What producers were told: each record is a topic, a key and a value."""

    acknowledged: Counter[_What] = field(default_factory=Counter)
    unknown: Counter[_What] = field(default_factory=Counter)
    aborted: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def told(self, record: Record, error: KafkaError | None) -> None:
        """The outcome of one record that needs no transaction."""
        with self.lock:
            outcome = self.acknowledged if error is None else self.unknown
            outcome[_what(record)] += 1

    def compacted(self) -> None:
        """What was acknowledged may be gone since: compaction keeps a key's last record only."""
        with self.lock:
            self.unknown += self.acknowledged
            self.acknowledged.clear()

    def repeated(self, log: Iterable[Logged]) -> list[str]:
        """Records that lie in the log more often than they were sent: a client's own repeats.

        No anomaly: a view takes each version once. It is said because idempotence should spare it.
        """
        there = Counter((r.topic, r.key, r.value) for r in log)
        with self.lock:
            known = self.acknowledged + self.unknown
            extra = {what for what in there - known if what in known}
        return [
            f"{r.topic}/{r.partition}@{r.offset} {r.key!r}"
            for r in log
            if (r.topic, r.key, r.value) in extra
        ]

    def problems(self, log: Iterable[Logged]) -> list[str]:
        """What is lost, what was never sent, and what was aborted and shows."""
        there = Counter((r.topic, r.key, r.value) for r in log)
        with self.lock:
            lost = self.acknowledged - there
            extra = there.keys() - self.acknowledged.keys() - self.unknown.keys()
        shown = [r for r in there if r[1] is not None and r[1].startswith(ABORTED.encode())]
        return [
            *(f"acknowledged, and not in the log: {what!r}"[:200] for what in lost),
            *(f"in the log, and never sent: {what!r}"[:200] for what in extra),
            *(f"aborted, and in the committed log: {what!r}"[:200] for what in shown),
        ]


def _what(record: Record) -> _What:
    return record.topic, record.key, record.value


def producer(bootstrap: str, **options: object) -> Producer:
    """An idempotent producer with acks=all."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "log_level": 0,
            "message.max.bytes": 2_000_000,
            "reconnect.backoff.max.ms": 500,
            "metadata.recovery.rebootstrap.trigger.ms": 5_000,
            "delivery.timeout.ms": int(_FLUSH_S * 1000),
            "transaction.timeout.ms": int(_FLUSH_S * 1000),
            **options,
        }
    )


def send(bootstrap: str, records: Iterable[Record], ledger: Ledger) -> None:
    """Send all and wait until each one's outcome is known."""
    client = producer(bootstrap)
    for record in records:
        _send(client, record, ledger)
    assert client.flush(_FLUSH_S) == 0, "not every record was acknowledged"


def _send(
    client: Producer, record: Record, ledger: Ledger | None, first: First | None = None
) -> None:
    def delivered(error: KafkaError | None, message: Message) -> None:
        if ledger is not None:
            ledger.told(record, error)
        if first is not None and error is None:
            first.setdefault((record.topic, message.partition() or 0), message.offset() or 0)

    offer(client, record, delivered)


def offer(
    client: Producer,
    record: Record,
    delivered: Callable[[KafkaError | None, Message], None] | None = None,
) -> None:
    """Put a record into a producer's queue; wait while the broker is slower than we are."""
    while True:
        try:
            client.produce(
                record.topic,
                record.value,
                record.key,
                timestamp=record.timestamp_ms,
                on_delivery=delivered,
            )
        except BufferError:
            client.poll(0.1)
        else:
            client.poll(0)
            return


class Trickle:
    """Sends records at a steady pace on a thread of its own until it is stopped or they end."""

    def __init__(
        self, bootstrap: str, records: Iterable[Record], ledger: Ledger, *, per_s: int
    ) -> None:
        self._client = producer(bootstrap)
        self._records = iter(records)
        self._ledger = ledger
        self._per_s = per_s
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="trickle", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending, and wait until each outcome is known. What ended it before is raised."""
        self._stopping.set()
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error
        assert self._client.flush(_FLUSH_S) == 0, "not every record was acknowledged"

    def _run(self) -> None:
        try:
            self._send_steadily()
        except BaseException as error:  # noqa: BLE001 - raised by `stop`, in the test's thread
            self._error = error

    def _send_steadily(self) -> None:
        while not self._stopping.wait(0.1):
            some = list(islice(self._records, max(1, self._per_s // 10)))
            if not some:
                return
            for record in some:
                _send(self._client, record, self._ledger)


def transactions(
    bootstrap: str,
    committed: Iterator[Record],
    aborted: Iterator[Record],
    ledger: Ledger,
    *,
    rounds: int,
    size: int = 10,
) -> None:
    """Transactions in turns: one is committed, one aborted after its records landed."""
    client = producer(bootstrap, **{"transactional.id": f"faults-{id(ledger)}"})
    client.init_transactions(_FLUSH_S)
    for _ in range(rounds):
        kept = list(islice(committed, size))
        client.begin_transaction()
        for record in kept:
            _send(client, record, None)
        client.commit_transaction(_FLUSH_S)
        for record in kept:
            ledger.told(record, None)
        client.begin_transaction()
        for record in islice(aborted, size):
            _send(client, record, None)
        assert client.flush(_FLUSH_S) == 0
        client.abort_transaction(_FLUSH_S)
        ledger.aborted += 1


class OpenTransaction:
    """A transaction that is left open: it pins the last stable offset until it is ended."""

    def __init__(self, bootstrap: str, records: Iterable[Record], ledger: Ledger) -> None:
        self._client = producer(bootstrap, **{"transactional.id": f"open-{id(self)}"})
        self._records = list(records)
        self._ledger = ledger
        self.first: First = {}
        """The first of its records in each partition: nobody who reads what is committed passes."""
        self._client.init_transactions(_FLUSH_S)
        self._client.begin_transaction()
        for record in self._records:
            _send(self._client, record, None, self.first)
        assert self._client.flush(_FLUSH_S) == 0

    def commit(self) -> None:
        """Commit it; if that can't be told, its records are unknown."""
        try:
            self._client.commit_transaction(_FLUSH_S)
        except KafkaException as error:
            for record in self._records:
                self._ledger.told(record, error.args[0])
        else:
            for record in self._records:
                self._ledger.told(record, None)

    def abort(self) -> None:
        """Abort it."""
        self._client.abort_transaction(_FLUSH_S)
        self._ledger.aborted += 1
