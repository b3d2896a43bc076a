"""The API's metrics: one typed list. Names follow Prometheus' rules, units in the name.

Several processes of one `viewkeeper api` share their figures through a folder that the command line
makes for them (prometheus_client's multiprocess mode), so that a scrape that meets one of them
reads the sums of all.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable of prometheus_client that names the folder; it reads it when it is imported."""
SAMPLE_S: Final = 1.0

_SECONDS_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_STATEMENT_BUCKETS: Final = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_COST_BUCKETS: Final = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Everything that one API process counts since it started."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    request_seconds: Histogram = field(init=False)
    operations: Counter = field(init=False)
    operation_seconds: Histogram = field(init=False)
    operation_cost: Histogram = field(init=False)
    operation_statements: Histogram = field(init=False)
    operation_ways: Counter = field(init=False)
    slow_operations: Counter = field(init=False)
    live_computations: Counter = field(init=False)
    build: Gauge = field(init=False)
    sockets: Gauge = field(init=False)
    live_followers: Gauge = field(init=False)
    live_queries: Gauge = field(init=False)
    waiting: Gauge = field(init=False)
    connections_used: Gauge = field(init=False)
    connections_waited_for: Gauge = field(init=False)
    _sampled: list[tuple[Gauge, Callable[[], float]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        made = {
            "requests": self._counter(
                "requests_total", "HTTP requests, by route and status.", "route", "method", "status"
            ),
            "request_seconds": self._histogram(
                "request_seconds",
                "From a request's first byte to its answer's last; streams are not in it.",
                _SECONDS_BUCKETS,
                "route",
            ),
            "operations": self._counter(
                "operations_total",
                "GraphQL operations, by name, transport and outcome: ok, or the first error.",
                "operation",
                "over",
                "outcome",
            ),
            "operation_seconds": self._histogram(
                "operation_seconds",
                "From an operation to its result (a subscription's first), events waited for too.",
                _SECONDS_BUCKETS,
                "operation",
            ),
            "operation_cost": self._histogram(
                "operation_cost",
                "What operations may cost at most, by static analysis.",
                _COST_BUCKETS,
                "operation",
            ),
            "operation_statements": self._histogram(
                "operation_statements",
                "SQL statements of one operation, those that read the position included.",
                _STATEMENT_BUCKETS,
            ),
            "operation_ways": self._counter(
                "operation_ways_total",
                "GraphQL operations, by how they were answered: compiled, or why not.",
                "way",
            ),
            "slow_operations": self._counter(
                "slow_operations_total",
                "Operations that worked longer than VIEWKEEPER_API_SLOW_OPERATION_MS.",
                "operation",
            ),
            "live_computations": self._counter(
                "live_computations_total",
                "Computations of live queries, each for all who follow.",
                "operation",
                "outcome",
            ),
            "build": Gauge(
                "viewkeeper_api_build",
                "Number of the build that answers come from, the oldest where processes differ.",
                registry=self.registry,
                multiprocess_mode="livemin",
            ),
            "sockets": self._gauge("sockets", "WebSockets that are open."),
            "live_followers": self._gauge(
                "live_followers", "Subscriptions that follow a live query."
            ),
            "live_queries": self._gauge(
                "live_queries", "Different live queries that are computed for them."
            ),
            "waiting": self._gauge(
                "operations_waiting", "Operations that wait for events that they asked for."
            ),
            "connections_used": self._gauge(
                "connections_used", "Connections to the database that are at work."
            ),
            "connections_waited_for": self._gauge(
                "connections_waited_for", "Operations that wait for a connection to the database."
            ),
        }
        for name, metric in made.items():
            object.__setattr__(self, name, metric)

    def follow(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Let a gauge show that value, whenever it is read."""
        self._sampled.append((gauge, value))

    def sample(self) -> None:
        """Bring the gauges up to date."""
        for gauge, value in self._sampled:
            gauge.set(value())

    async def keep_sampled(self) -> None:
        """Do so again and again: a scrape may meet another process."""
        while True:
            self.sample()
            await asyncio.sleep(SAMPLE_S)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it; of every process that shares it."""
        self.sample()
        folder = os.environ.get(SHARED_FOLDER)
        if folder is None:
            return generate_latest(self.registry)
        _forget_the_dead(Path(folder))
        shared = CollectorRegistry()
        MultiProcessCollector(shared, folder)  # type: ignore[no-untyped-call] # the library's
        return generate_latest(shared)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"viewkeeper_api_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(
            f"viewkeeper_api_{name}", text, registry=self.registry, multiprocess_mode="livesum"
        )

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"viewkeeper_api_{name}", text, labels, buckets=buckets, registry=self.registry
        )


def _forget_the_dead(folder: Path) -> None:
    """Gauges of processes that ended are over; what they counted stays counted."""
    for each in folder.glob("gauge_live*_*.db"):
        number = int(each.stem.rpartition("_")[2])
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            mark_process_dead(number, str(folder))  # type: ignore[no-untyped-call] # the same
