"""Freshness: from the broker's acknowledgement of an event until a reader sees it.

Beside a steady flow of events a probe writes one of its own, waits for the acknowledgement, and
asks until the event is there. For the product it asks the API; for the bare loop, the table.
"""

import http.client
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final

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


class Probe:
    """Writes single orders and tells when each was acknowledged."""

    def __init__(self, stage: Stage, *, prefix: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": stage.kafka.bootstrap_servers, "linger.ms": 0, "log_level": 3}
        )
        self._encoder = Encoder(stage.schema_ids)
        orders = Shop(seed=13, prefix=prefix, woven=1)
        self._events = (e for e in orders.events(sys.maxsize) if e.content["version"] == 1)

    def write(self) -> str:
        """Write one order that never was; return its id as soon as the broker has it."""
        event = next(event for event in self._events if event.topic == "orders")
        answers: list[KafkaError | None] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            answers.append(error)

        self._producer.produce(
            "orders", key=event.key, value=self._encoder(event), on_delivery=delivered
        )
        while not answers:
            self._producer.poll(PROBE_TIMEOUT_S)
        if answers[0] is not None:
            raise RuntimeError(f"a probe was not delivered: {answers[0]}")
        return event.key

    def delay_ms(self, seen: Seen, *, timeout_s: float = PROBE_TIMEOUT_S) -> float:
        """Write one order and wait until it is seen. TimeoutError: it was not."""
        key = self.write()
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
                    f" p99 {sample.p99_ms:.1f} ms"
                )
        measured.append(samples)
    return measured


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

        return _probed(place, WORKER.name, worker.pid, seen)


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


def _probed(place: _Place, side: str, worker_pid: int, seen: Seen) -> FreshnessSample:
    probe = Probe(place.stage, prefix=f"probe-{place.name}")
    _first_seen(probe, seen)
    with place.stage.child("paced", _paced_command(place)):
        for _ in range(WARM_PROBES):
            probe.delay_ms(seen)
        delays = []
        for _ in range(place.probes):
            time.sleep(PAUSE_S)
            delays.append(probe.delay_ms(seen))
        rss_mb = memory_mb(worker_pid)[0]
    return FreshnessSample(
        side=side,
        rate=place.rate,
        p50_ms=percentile(delays, 0.5),
        p99_ms=percentile(delays, 0.99),
        worker_rss_mb=rss_mb,
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
