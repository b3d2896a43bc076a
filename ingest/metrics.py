"""The worker's metrics: one typed list. Names follow Prometheus' rules, units in the name."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ingest.fold import COUNTERS, Folded
from ingest.operate import BuildProgress
from views.positions import Partition

REGISTRY = CollectorRegistry()

_BATCH_BUCKETS = (1, 10, 100, 1_000, 5_000, 10_000, 20_000, 50_000)
_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Everything that a worker counts since it started. The lasting counters are in `positions`."""

    records: Counter = field(
        default_factory=lambda: _counter(
            "viewkeeper_records_total",
            "Records committed, by what became of them.",
            "topic",
            "outcome",
        )
    )
    batches: Counter = field(
        default_factory=lambda: _counter("viewkeeper_batches_total", "Transactions committed.")
    )
    batch_records: Histogram = field(
        default_factory=lambda: Histogram(
            "viewkeeper_batch_records",
            "Records in a transaction.",
            buckets=_BATCH_BUCKETS,
            registry=REGISTRY,
        )
    )
    write_seconds: Histogram = field(
        default_factory=lambda: Histogram(
            "viewkeeper_write_seconds",
            "From handing a batch to the database to its commit.",
            buckets=_SECONDS_BUCKETS,
            registry=REGISTRY,
        )
    )
    fenced: Counter = field(
        default_factory=lambda: _counter(
            "viewkeeper_fenced_total", "Times that a newer owner was met."
        )
    )
    outages: Counter = field(
        default_factory=lambda: _counter(
            "viewkeeper_outages_total", "Times that broker, registry or database was away."
        )
    )
    stopped: Counter = field(
        default_factory=lambda: _counter(
            "viewkeeper_stopped_total",
            "Times that a partition was stopped: too many dead letters, or another log.",
            "topic",
        )
    )
    dead_letters_sent: Counter = field(
        default_factory=lambda: _counter(
            "viewkeeper_dead_letters_sent_total",
            "Dead letters that the broker took for the topic <topic>.dlq.",
            "topic",
        )
    )
    unlisted_symbols: Counter = field(
        default_factory=lambda: _counter(
            "viewkeeper_unlisted_symbols_total",
            "Enum symbols that are not in our contract and became its default.",
            "topic",
        )
    )
    next_offset: Gauge = field(
        default_factory=lambda: _gauge(
            "viewkeeper_next_offset", "The next offset to read.", "topic", "partition"
        )
    )
    lag_events: Gauge = field(
        default_factory=lambda: _gauge(
            "viewkeeper_lag_events",
            "Offsets between a position and the end of its partition.",
            "topic",
            "partition",
        )
    )
    build_events: Gauge = field(
        default_factory=lambda: _gauge(
            "viewkeeper_build_events", "Offsets that a build holds.", "build", "state"
        )
    )
    build_behind: Gauge = field(
        default_factory=lambda: _gauge(
            "viewkeeper_build_behind_live_events",
            "Offsets that the live build holds and this one does not.",
            "build",
            "state",
        )
    )
    ready: Gauge = field(
        default_factory=lambda: _gauge("viewkeeper_ready", "1 while the worker is ready.")
    )

    def batch(self, folded: Folded, size: int) -> None:
        """Count a committed batch."""
        self.batches.inc()
        self.batch_records.observe(size)
        for (topic, partition), counts in folded.counters.items():
            for outcome, count in zip(COUNTERS, counts, strict=True):
                if count:
                    self.records.labels(topic, outcome).inc(count)
            end = folded.advances[topic, partition].end
            self.next_offset.labels(topic, str(partition)).set(end)

    def builds(self, found: Iterable[BuildProgress]) -> None:
        """Note how far every build is; those that are gone are forgotten."""
        self.build_events.clear()
        self.build_behind.clear()
        for build in found:
            self.build_events.labels(build.name, build.state).set(build.events)
            self.build_behind.labels(build.name, build.state).set(build.behind_live_events)

    def end(self, partition: Partition, high: int, next_offset: int) -> None:
        """Note how far a partition is behind its end."""
        self.lag_events.labels(partition[0], str(partition[1])).set(max(0, high - next_offset))


METRICS = Metrics()
