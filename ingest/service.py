"""One worker process: its parts put together, started, watched and stopped.

Stands apart from `worker` so that that page decides and this one owns threads and sockets.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import structlog

from ingest import failpoints, watermarks
from ingest.beside import Beside
from ingest.claim import Observation
from ingest.connect import Session
from ingest.consume import Log
from ingest.decode import PAUSE_S, Decoder
from ingest.errors import RefusedError, TransientError
from ingest.form import form_of
from ingest.health import ops_server
from ingest.metrics import METRICS
from ingest.outbox import Outbox
from ingest.settings import IngestSettings
from ingest.status import Status
from ingest.store import Store
from ingest.tuning import tune_interpreter
from ingest.worker import BROKER_TIMEOUT_S, Limits, Worker
from schemas import contracts
from schemas.registry import Registry
from views import CATALOGUE
from views.positions import BadPositionError, Partition, PositionVector, generation_of

_log = structlog.get_logger(__name__)

WATCH_S = 1.0
"""How often the ends of the partitions, the ids of their topics and the operator's pauses are
looked at."""
_TOPICS_EVERY = 10
_START_RETRY_S = 1.0


def run(
    settings: IngestSettings,
    *,
    until: PositionVector | None = None,
    stop: threading.Event,
) -> bool:
    """Run a worker until `stop` is set, or until the position to stop at is reached.

    Answers whether it is reached, by this worker or others of its group; True where none is given.
    RefusedError: going on would be wrong; the message says why and what to do. BadPositionError:
    the position is not one of this log. Outages of broker, registry and database are waited out.
    """
    failpoints.arm(failpoints.parse(settings.failpoints), settings.failpoints_file)
    with ExitStack() as stack:
        status = Status()
        port = stack.enter_context(
            ops_server(status, host=settings.ops_host, port=settings.ops_port)
        )
        _log.info("ops port open", host=settings.ops_host, port=port)
        parts = _parts(settings, status, stop, until)
        stack.callback(parts.close)
        if _ready_to_start(parts, stop, until):
            _loop(parts, stop, until)
            parts.worker.finish()
        return _reached(parts, until)


@dataclass(slots=True)
class _Parts:
    kafka: Log
    store: Store
    beside: Beside
    registry: Registry
    worker: Worker
    status: Status
    outbox: Outbox
    admin_options: Mapping[str, str]
    watch: "_Watch" = field(init=False)

    def close(self) -> None:
        """Leave the group last, so that nobody takes over what is still being written."""
        self.worker.finish()
        self.kafka.close()
        self.store.close()
        self.beside.close()
        self.registry.close()


def _parts(
    settings: IngestSettings,
    status: Status,
    stop: threading.Event,
    until: PositionVector | None,
) -> _Parts:
    schemas = {
        stream.contract: contracts.load(stream.contract).schema for stream in CATALOGUE.streams
    }
    dsn = settings.database_url.get_secret_value()
    password = settings.schema_registry_password
    registry = Registry(
        settings.schema_registry_url,
        user=settings.schema_registry_user,
        password=None if password is None else password.get_secret_value(),
    )
    forms = {
        view.stream.topic: form_of(view, schemas[view.stream.contract])
        for view in CATALOGUE.stream_views
    }
    session = Session(
        dsn, catalogue=CATALOGUE, forms=forms, allow_unsafe=settings.allow_unsafe_database
    )
    beside = Beside(dsn, session.owner)
    decoder = Decoder(
        CATALOGUE.stream_views,
        schemas,
        registry=registry,
        fingerprints=beside,
        stop=stop,
        on_unlisted=lambda topic: METRICS.unlisted_symbols.labels(topic).inc(),
    )
    kafka = Log(settings.consumer_options(), settings.admin_options(), CATALOGUE)
    store = Store(session)
    worker = Worker(
        log=kafka,
        store=store,
        decoder=decoder,
        views={v.stream.topic: v.name for v in CATALOGUE.stream_views},
        clock=time.monotonic,
        limits=Limits(
            rows=settings.batch_rows,
            size_bytes=settings.batch_bytes,
            linger_s=settings.batch_ms / 1000,
            retry_pause_s=PAUSE_S,
        ),
        status=status,
        until=until,
    )
    outbox = Outbox(
        dsn,
        session.owner,
        producer_options=settings.admin_options(),
        admin_options=settings.admin_options(),
        may_create=settings.create_dead_letter_topics,
    )
    parts = _Parts(kafka, store, beside, registry, worker, status, outbox, settings.admin_options())
    parts.watch = _Watch(parts, stop)
    return parts


def _ready_to_start(parts: _Parts, stop: threading.Event, until: PositionVector | None) -> bool:
    """Look at everything once; wait while something is away. False: told to stop meanwhile."""
    while not stop.is_set():
        try:
            parts.store.open()
            parts.kafka.refuse_compacted(BROKER_TIMEOUT_S)
            if until is not None:
                _refuse_strange(parts.kafka, until)
        except TransientError as error:
            _log.warning("waiting", reason=str(error))
            parts.status.wait_for(str(error))
            stop.wait(_START_RETRY_S)
        else:
            parts.status.wait_for("the first assignment")
            return True
    return False


def _refuse_strange(kafka: Log, until: PositionVector) -> None:
    """BadPositionError: the position is of another log, or names a partition that is not there.

    Its offsets may be those of events to come.
    """
    brokers = kafka.describe([(topic, 0) for topic in until.topics()], BROKER_TIMEOUT_S)
    there = kafka.all_partitions(BROKER_TIMEOUT_S)
    unknown = [f"{t}:{p}" for t, p in sorted(until.next_offsets.keys() - set(there))]
    if unknown:
        raise BadPositionError(f"the broker has no partition {', '.join(unknown)}")
    for broker in list(brokers.values())[:1]:
        ids = [(topic, other.topic_id) for (topic, _), other in brokers.items()]
        here = generation_of(broker.cluster_id, ids)
        if until.generation not in (None, here):
            raise BadPositionError(
                f"the position is of generation {until.generation}, and this log's is {here}: it is"
                " of another cluster, or from before a topic was created anew"
            )


def _loop(parts: _Parts, stop: threading.Event, until: PositionVector | None) -> None:
    tune_interpreter()
    parts.kafka.join()
    with parts.watch, parts.outbox:
        while not stop.is_set() and (until is None or not _reached(parts, until)):
            parts.worker.step()
            parts.watch.hand_over()


def _reached(parts: _Parts, until: PositionVector | None) -> bool:
    """Whether the rows say so: partitions may be another worker's, or nobody's for a moment."""
    if until is None:
        return True
    try:
        return parts.worker.finished() and parts.beside.positions().includes(until)
    except TransientError:  # asked again at the next step, which waits
        return False


IDLE_S = 10.0
"""How long a worker may own nothing until its client is asked whether it reaches a broker. Not at
once: while partitions are being assigned, librdkafka may leave that open for half a minute."""
STRANDED_S = 20.0
"""How long our clients may reach no broker while one that is made anew reaches them."""


class _Watch:
    """Looks at the broker's ends and the operator's pauses about once a second, on its own thread.

    The ends are asked for after the database's time was read, so that "complete as of" that time
    is true of whoever has reached them.
    """

    def __init__(self, parts: _Parts, stop: threading.Event) -> None:
        self._parts = parts
        self._stop = stop
        self._done = threading.Event()
        self._owned: Mapping[Partition, int] = {}
        self._lives: Mapping[str, tuple[str, str]] = {}
        self._compacted: set[str] = set()
        self._seen: Mapping[Partition, Observation] | None = None
        self._held: set[Partition] | None = None
        self._strangers: set[Partition] = set()
        self._failure: Exception | None = None
        self._stranded_since_s: float | None = None
        self._idle_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._thread.join(timeout=2 * BROKER_TIMEOUT_S)

    def hand_over(self) -> None:
        """Give the worker what was seen since. Called by the worker's thread.

        What ended the look-out is raised here: without it, pauses and freshness would stand still.
        """
        if self._failure is not None:
            raise self._failure
        self._owned = self._parts.worker.positions()
        seen, self._seen = self._seen, None
        if seen is not None:
            positions = self._parts.worker.positions()
            for partition in seen.keys() & positions.keys():
                METRICS.end(partition, seen[partition].high, positions[partition])
            self._parts.worker.observe(seen)
        strangers, self._strangers = self._strangers, set()
        self._parts.worker.doubt(strangers)
        held, self._held = self._held, None
        if held is not None:
            self._parts.worker.hold(held)

    def _run(self) -> None:
        turn = 0
        while not self._done.is_set() and not self._stop.is_set():
            try:
                self._turn(with_topics=turn % _TOPICS_EVERY == 0)
            except Exception as error:  # noqa: BLE001 - raised in the worker's thread
                self._failure = error
                return
            turn += 1
            self._done.wait(WATCH_S)

    def _turn(self, *, with_topics: bool) -> None:
        try:
            self._look(with_topics=with_topics)
        except TransientError as error:
            self._parts.status.broker_away(str(error))
            self._look_for_brokers()
        else:
            self._parts.status.broker_away(None)
            if self._is_idle():
                self._look_for_brokers()

    def _is_idle(self) -> bool:
        """Whether the worker has owned nothing for a while."""
        if self._owned:
            self._idle_since_s = None
            return False
        now_s = time.monotonic()
        self._idle_since_s = self._idle_since_s or now_s
        return now_s - self._idle_since_s >= IDLE_S

    def _look_for_brokers(self) -> None:
        """End the worker where only a new client finds the brokers.

        librdkafka 2.16 lets go of every broker, the bootstrap servers too, when it is told of none
        alive, as by one that was frozen; then it has nobody left to ask, and never begins anew.
        """
        options, topic = self._parts.admin_options, CATALOGUE.topics[0]
        if self._parts.kafka.reaches(BROKER_TIMEOUT_S) or not watermarks.answers(
            options, topic, BROKER_TIMEOUT_S
        ):
            self._stranded_since_s = None
            return
        now_s = time.monotonic()
        self._stranded_since_s = self._stranded_since_s or now_s
        if now_s - self._stranded_since_s >= STRANDED_S:
            raise RefusedError(
                "the Kafka client has lost every broker and does not find back, though they answer"
                " a new one: start this worker again"
            )

    def _look(self, *, with_topics: bool) -> None:
        owned = self._owned
        at = self._parts.beside.now()
        partitions = self._parts.kafka.all_partitions(BROKER_TIMEOUT_S)
        if self._are_others(partitions) or with_topics:
            brokers = self._parts.kafka.describe(partitions, BROKER_TIMEOUT_S)
            self._strangers = self._parts.beside.ensure_rows(brokers)
        ends = self._parts.kafka.ends(owned, BROKER_TIMEOUT_S)
        self._strangers |= {partition for partition in owned if partition[0] in self._compacted}
        # A log that ends before what was read of it was cut: it must not count as caught up.
        self._strangers |= {
            partition for partition, high in ends.items() if high < owned[partition]
        }
        self._seen = {partition: Observation(high, at) for partition, high in ends.items()}
        self._held = self._parts.beside.held()
        self._parts.status.builds = builds = self._parts.beside.builds()
        METRICS.builds(builds)

    def _are_others(self, partitions: Iterable[Partition]) -> bool:
        """Whether the cluster, or the life of a topic, is not the one of the last look."""
        before = self._lives
        first = [(topic, number) for topic, number in partitions if number == 0]
        brokers = self._parts.kafka.describe(first, BROKER_TIMEOUT_S)
        self._lives = {topic: (b.cluster_id, b.topic_id) for (topic, _), b in brokers.items()}
        self._compacted = {topic for (topic, _), b in brokers.items() if b.compaction is not None}
        return before != self._lives
