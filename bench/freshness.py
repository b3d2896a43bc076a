"""Freshness: from the broker's acknowledgement of an event until a reader sees it.

Beside a steady flow of events a probe writes one of its own, waits for the acknowledgement, and
asks until the event is there. For the product it asks the API; for the bare loop, the table. The
product is also asked once, with the event's position as `atLeast`: how long after the commit is the
one who waits answered?
"""

import http.client
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from confluent_kafka import KafkaError, Message, Producer

from bench.child import memory_mb
from bench.contestants import WORKER, Run
from bench.eventlog import Encoder, EventLog, Shop
from bench.serving import VIEWKEEPER, Running, ask
from bench.stage import Database, Stage, script
from bench.stats import percentile
from bench.throughput import Say
from dev.ports import LOOPBACK

FIRST_TIMEOUT_S: Final = 120.0
PROBE_TIMEOUT_S: Final = 30.0
LOOK_EVERY_S: Final = 0.001
PAUSE_S: Final = 0.02
WARM_PROBES: Final = 10
BARE_LOOP: Final = "bare loop"
_QUERY: Final = "query Seen($id: String!) { order(orderId: $id) { version } }"

Seen = Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshnessSample:
    """One side at one rate in one round."""

    side: str
    rate: int
    p50_ms: float
    p99_ms: float
    worker_rss_mb: float
    api_rss_mb: float | None = None
    woken_p50_ms: float | None = None
    woken_p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """An order that the broker has: its id, and its event's position."""

    order_id: str
    position: str


class Probe:
    """Writes single orders and tells when each was acknowledged."""

    def __init__(self, stage: Stage, *, prefix: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": stage.kafka.bootstrap_servers, "linger.ms": 0, "log_level": 3}
        )
        self._encoder = Encoder(stage.schema_ids)
        orders = Shop(seed=13, prefix=prefix, woven=1)
        self._events = (e for e in orders.events(sys.maxsize) if e.content["version"] == 1)

    def write(self) -> Written:
        """Write one order that never was; return as soon as the broker has it."""
        event = next(event for event in self._events if event.topic == "orders")
        answers: list[tuple[KafkaError | None, Message]] = []
        self._producer.produce(
            "orders",
            key=event.key,
            value=self._encoder(event),
            on_delivery=lambda error, message: answers.append((error, message)),
        )
        while not answers:
            self._producer.poll(PROBE_TIMEOUT_S)
        error, message = answers[0]
        if error is not None:
            raise RuntimeError(f"a probe was not delivered: {error}")
        return Written(event.key, f"orders:{message.partition()}:{message.offset()}")

    def delay_ms(self, seen: Seen, *, timeout_s: float = PROBE_TIMEOUT_S) -> float:
        """Write one order and wait until it is seen. TimeoutError: it was not."""
        key = self.write().order_id
        acknowledged_at = time.perf_counter()
        while not seen(key):
            if time.perf_counter() - acknowledged_at > timeout_s:
                raise TimeoutError(f"{key} was not seen within {timeout_s:g} s")
            time.sleep(LOOK_EVERY_S)
        return (time.perf_counter() - acknowledged_at) * 1000


def rounds(
    stage: Stage,
    log: EventLog,
    database: Database,
    *,
    rates: Sequence[int],
    probes: int,
    count: int,
    say: Say,
) -> list[list[FreshnessSample]]:
    """Both sides at every rate, once per round, one after the other."""
    measured = []
    for number in range(count):
        samples = []
        sides = (_product, _bare_loop)
        for rate in rates:
            for side in sides if number % 2 == 0 else sides[::-1]:
                name = f"f{number}-{rate}-{side.__name__.strip('_')}"
                sample = side(_Place(stage, log, database, name, rate, probes))
                samples.append(sample)
                say(
                    f"  {rate:,} events/s: {sample.side} p50 {sample.p50_ms:.1f} ms,"
                    f" p99 {sample.p99_ms:.1f} ms{_woken_said(sample)}"
                )
        measured.append(samples)
    return measured


def _woken_said(sample: FreshnessSample) -> str:
    known = sample.woken_p50_ms is not None
    return f", woken p50 {sample.woken_p50_ms:.1f} ms" if known else ""


@dataclass(frozen=True, slots=True)
class _Place:
    stage: Stage
    log: EventLog
    database: Database
    name: str
    rate: int
    probes: int


def _product(place: _Place) -> FreshnessSample:
    run = Run(place.stage, place.log, place.database)
    with ExitStack() as stack:
        command = [str(script("viewkeeper")), "ingest"]
        worker = stack.enter_context(
            place.stage.child("worker", command, environment=WORKER.settings(run))
        )
        api = Running(place.stage, VIEWKEEPER, place.database)
        stack.callback(api.child.stop)
        api.wait_ready()
        connection = http.client.HTTPConnection(LOOPBACK, api.port, timeout=10)
        stack.enter_context(closing(connection))

        def seen(order_id: str) -> bool:
            answer = ask(connection, VIEWKEEPER.path, _QUERY, {"id": order_id})
            return answer["order"] is not None

        database = stack.enter_context(psycopg.connect(place.database.dsn, autocommit=True))

        def woken_ms(written: Written) -> float | None:
            demand = {"atLeast": written.position, "timeoutMs": 10_000}
            asked_at = time.time()
            answer = ask(
                connection, VIEWKEEPER.path, _QUERY, {"id": written.order_id}, consistency=demand
            )
            answered_at = time.time()
            if answer["order"] is None:
                raise RuntimeError(f"{written} was waited for, and is not in the answer")
            committed_at = _committed_at(database, written.order_id)
            return (answered_at - committed_at) * 1000 if asked_at < committed_at else None

        return _probed(
            place,
            WORKER.name,
            worker.pid,
            seen,
            more=lambda probe: {
                **_woken(probe, woken_ms, place.probes),
                "api_rss_mb": memory_mb(api.child.pid)[0],
            },
        )


def _committed_at(database: psycopg.Connection[Any], order_id: str) -> float:
    query = (
        "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8"
        " FROM build_1.orders WHERE order_id = %s"
    )
    row = database.execute(query, (order_id,)).fetchone()
    if row is None:
        raise RuntimeError(f"{order_id} was answered, and is not in the table")
    return float(row[0])


def _woken(
    probe: Probe, woken_ms: Callable[[Written], float | None], probes: int
) -> dict[str, float]:
    """How long after their commit waiting questions were answered; none where none had to wait."""
    delays = []
    for _ in range(probes):
        time.sleep(PAUSE_S)
        delays.append(woken_ms(probe.write()))
    waited = [delay for delay in delays if delay is not None]
    if not waited:
        return {}
    return {"woken_p50_ms": percentile(waited, 0.5), "woken_p99_ms": percentile(waited, 0.99)}


def _nothing(_: Probe) -> dict[str, float]:
    return {}


def _bare_loop(place: _Place) -> FreshnessSample:
    with ExitStack() as stack:
        command = [
            *(sys.executable, "-m", "bench.bare_loop"),
            *("--bootstrap-servers", place.stage.kafka.bootstrap_servers),
            *("--dsn", place.database.dsn, "--group", place.name),
        ]
        loop = stack.enter_context(place.stage.child(BARE_LOOP, command))
        connection = stack.enter_context(psycopg.connect(place.database.dsn, autocommit=True))

        def seen(order_id: str) -> bool:
            query = "SELECT 1 FROM bare WHERE order_id = %s"
            try:
                return connection.execute(query, (order_id,)).fetchone() is not None
            except psycopg.errors.UndefinedTable:  # the loop has only just been started
                return False

        return _probed(place, BARE_LOOP, loop.pid, seen)


def _probed(
    place: _Place,
    side: str,
    worker_pid: int,
    seen: Seen,
    *,
    more: Callable[[Probe], dict[str, float]] = _nothing,
) -> FreshnessSample:
    probe = Probe(place.stage, prefix=f"probe-{place.name}")
    _first_seen(probe, seen)
    with place.stage.child("paced", _paced_command(place)):
        for _ in range(WARM_PROBES):
            probe.delay_ms(seen)
        delays = []
        for _ in range(place.probes):
            time.sleep(PAUSE_S)
            delays.append(probe.delay_ms(seen))
        rss_mb, further = memory_mb(worker_pid)[0], more(probe)
    return FreshnessSample(
        side=side,
        rate=place.rate,
        p50_ms=percentile(delays, 0.5),
        p99_ms=percentile(delays, 0.99),
        worker_rss_mb=rss_mb,
        **further,
    )


def _first_seen(probe: Probe, seen: Seen) -> None:
    """Wait until the side takes part at all: it may still join, or catch up."""
    deadline = time.monotonic() + FIRST_TIMEOUT_S
    while True:
        try:
            probe.delay_ms(seen, timeout_s=2.0)
        except TimeoutError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def _paced_command(place: _Place) -> list[str]:
    ids = place.stage.schema_ids
    return [
        *(sys.executable, "-m", "bench.paced", "--prefix", f"paced-{place.name}"),
        *("--bootstrap-servers", place.stage.kafka.bootstrap_servers),
        *("--rate", str(place.rate)),
        *("--orders-id", str(ids["orders"]), "--payments-id", str(ids["payments"])),
    ]
