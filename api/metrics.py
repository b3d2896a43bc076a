"""The API's metrics: one typed list. Names follow Prometheus' rules, units in the name."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STATEMENT_BUCKETS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Everything that one API process counts since it started."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    request_seconds: Histogram = field(init=False)
    operations: Counter = field(init=False)
    operation_statements: Histogram = field(init=False)
    operation_ways: Counter = field(init=False)
    sockets: Gauge = field(init=False)
    live_followers: Gauge = field(init=False)
    live_queries: Gauge = field(init=False)

    def __post_init__(self) -> None:
        made = {
            "requests": Counter(
                "viewkeeper_api_requests_total",
                "HTTP requests, by route and status.",
                ("route", "method", "status"),
                registry=self.registry,
            ),
            "request_seconds": Histogram(
                "viewkeeper_api_request_seconds",
                "From a request's first byte to its answer's last.",
                ("route",),
                buckets=_SECONDS_BUCKETS,
                registry=self.registry,
            ),
            "operations": Counter(
                "viewkeeper_api_operations_total",
                "GraphQL operations, by outcome: ok, or the code of the first error.",
                ("outcome",),
                registry=self.registry,
            ),
            "operation_ways": Counter(
                "viewkeeper_api_operation_ways_total",
                "GraphQL operations, by how they were answered: compiled, or why not.",
                ("way",),
                registry=self.registry,
            ),
            "operation_statements": Histogram(
                "viewkeeper_api_operation_statements",
                "SQL statements of one operation, those that read the position included.",
                buckets=_STATEMENT_BUCKETS,
                registry=self.registry,
            ),
            "sockets": Gauge(
                "viewkeeper_api_sockets", "WebSockets that are open.", registry=self.registry
            ),
            "live_followers": Gauge(
                "viewkeeper_api_live_followers",
                "Subscriptions that follow a live query.",
                registry=self.registry,
            ),
            "live_queries": Gauge(
                "viewkeeper_api_live_queries",
                "Different live queries that are computed for them.",
                registry=self.registry,
            ),
        }
        for name, metric in made.items():
            object.__setattr__(self, name, metric)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
