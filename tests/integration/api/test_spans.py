"""Spans: they continue the caller's trace, and hold no value; nothing of it where nobody asks."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import psycopg
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from api import spans
from api.app import create_app
from api.otel import OpenTelemetry
from dev.ports import LOOPBACK
from tests.fixtures.apis import ApiProcess
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import settings
from tests.integration.api.shop import Shop, insert, order, position, stock
from tests.integration.api.test_live import change, connected, next_of, service, subscribe
from tests.integration.api.test_log import (
    AS_A_KEY,
    IN_A_VARIABLE,
    IN_LINE,
    NAMED,
    TRACE,
    TRACEPARENT,
    asked,
    heard,
    named,
)


@pytest.fixture
def shop(database: Database) -> Database:
    """One order."""
    stock(database.dsn, Shop([order("a")]))
    with psycopg.connect(database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
    return database


class Seen:
    """The spans that have ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        """In the order of their ends."""
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of one name."""
        return [span for span in self.all if span.name == name]

    def names(self) -> list[str]:
        """All their names."""
        return [span.name for span in self.all]


@pytest.fixture
def seen() -> Iterator[Seen]:
    """Spans of the test are kept in memory."""
    kept, provider = Seen(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept.exporter))
    spans.switch_on(OpenTelemetry(provider))
    yield kept
    spans.switch_off()


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def test_spans_continue_the_trace_of_the_caller(shop: Database, seen: Seen) -> None:
    with heard() as lines, TestClient(create_app(settings(shop.api_dsn))) as client:
        client.post("/graphql", json={"query": NAMED}, headers=TRACEPARENT)
    ours = [span for span in seen.all if trace_of(span) == TRACE]
    assert [span.name for span in ours] == [
        *("parse and validate", "plan", "statement", "operation"),
        "POST /graphql",
    ]
    request, operation = ours[-1], ours[-2]
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == "b7ad6b7169203331"
    assert operation.parent == request.context
    assert all(span.parent == operation.context for span in ours[:-2])
    assert operation.attributes is not None
    assert operation.attributes["graphql.operation.name"] == "Named"
    assert operation.attributes["viewkeeper.outcome"] == "ok"
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    (line,) = named(lines, "request")
    assert line["trace_id"] == TRACE


def test_a_caller_without_a_trace_finds_its_own_in_the_log(shop: Database, seen: Seen) -> None:
    with heard() as lines, TestClient(create_app(settings(shop.api_dsn))) as client:
        client.post("/graphql", json={"query": NAMED})
    (request,), (line,) = seen.named("POST /graphql"), named(lines, "request")
    assert line["trace_id"] == trace_of(request)


def test_a_wait_for_events_has_its_span(shop: Database, seen: Seen) -> None:
    app = create_app(settings(shop.api_dsn))
    with TestClient(app) as client, connected(client) as socket:
        demand = {"consistency": {"atLeast": "orders:0:1", "timeoutMs": 10_000}}
        subscribe(socket, NAMED, extensions=demand)
        eventually(lambda: service(client).movements.waiting, 60, "it waits")
        change(shop.dsn, 1, None)
        next_of(socket)
    (operation,) = seen.named("operation")
    waits = seen.named("wait for events")
    assert waits
    assert all(wait.parent == operation.context for wait in waits)


@pytest.mark.parametrize("fails", [False, True])
def test_no_span_holds_a_value(fails: bool, shop: Database, seen: Seen) -> None:
    app = create_app(settings(shop.api_dsn, api_statement_timeout_s=0.5 if fails else 60))
    with TestClient(app) as client, psycopg.connect(shop.dsn) as holding:
        if fails:
            holding.execute("LOCK TABLE build_1.orders")
        answer = asked(client, "secret-id")
        assert ("data" not in answer) == fails
    told = "".join(span.to_json() for span in seen.all)
    assert "Private" in told
    assert ("error.type" in told) == fails
    for value in (IN_A_VARIABLE, IN_LINE, AS_A_KEY, "secret-id"):
        assert value not in told


def test_later_computations_of_a_live_query_belong_to_no_request(
    shop: Database, seen: Seen
) -> None:
    app = create_app(settings(shop.api_dsn))
    with TestClient(app) as client, connected(client, dict(TRACEPARENT)) as socket:
        subscribe(socket, 'subscription { order(orderId: "a") { status } }')
        next_of(socket)
        change(shop.dsn, 1, "SHIPPED")
        next_of(socket)
    first, *later = [trace_of(span) for span in seen.named("operation")]
    assert first == TRACE
    assert later
    assert TRACE not in later


@contextmanager
def collector() -> Iterator[tuple[str, "SimpleQueue[bytes]"]]:
    """What takes spans over HTTP; the bodies that came."""
    bodies: SimpleQueue[bytes] = SimpleQueue()

    class Takes(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Takes)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_process_sends_its_spans_before_it_ends(shop: Database, tmp_path: Path) -> None:
    with collector() as (address, bodies):
        environment = {
            "VIEWKEEPER_API_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": address,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        }
        process = ApiProcess(shop.api_dsn, tmp_path, environment)
        try:
            process.start()
            assert "data" in process.ask(NAMED)
            assert process.stop() == 0, process.log
        finally:
            process.close()
        names, services = set(), set()
        while not bodies.empty():
            for each in ExportTraceServiceRequest.FromString(bodies.get()).resource_spans:
                about = {pair.key: pair.value.string_value for pair in each.resource.attributes}
                services.add(about["service.name"])
                names |= {span.name for scope in each.scope_spans for span in scope.spans}
    assert {"POST /graphql", "operation", "statement"} <= names
    assert services == {"viewkeeper-api"}


def test_opentelemetry_is_not_loaded_where_nobody_asks_for_it() -> None:
    program = "import sys, cli.serve; sys.exit('opentelemetry' in {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
