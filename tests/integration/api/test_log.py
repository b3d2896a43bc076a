"""What the log tells: a line per request and per socket, more where an operation was slow."""

import re
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import orjson
import psycopg
import pytest
import structlog
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from api.app import create_app
from api.execute import Answer
from api.figures import Figures, Names
from api.metrics import Metrics
from api.opaque import packed
from api.ran import Ran
from tests.fixtures.databases import Database
from tests.integration.api.conftest import settings
from tests.integration.api.shop import Shop, order, stock
from tests.integration.api.test_callers import bearing, guarded, signed
from tests.integration.api.test_live import connected, next_of, subscribe

Line = MutableMapping[str, Any]
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
NAMED = "query Named { orders(first: 3) { nodes { orderId } } }"
IN_A_VARIABLE, IN_LINE, AS_A_KEY = "secret-of-a-variable", "secret-in-line", "secret-key"
PRIVATE = f"""query Private($who: String!, $id: ID!) {{
  orders(
    where: {{customerId: {{eq: $who}}, orderId: {{in: ["{IN_LINE}"]}}}}
    orderBy: [{{field: ORDER_ID, direction: DESC}}]
  ) {{ nodes {{ orderId }} totalCount }}
  order(orderId: "{AS_A_KEY}") {{ amount }}
  node(id: $id) {{ id }}
}}"""


@contextmanager
def heard() -> Iterator[list[Line]]:
    """All lines of the log, with what is bound to each request."""
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        yield lines


def named(lines: list[Line], event: str) -> list[Line]:
    return [line for line in lines if line["event"] == event]


@pytest.fixture
def shop(database: Database) -> Database:
    """Two orders."""
    stock(database.dsn, Shop([order("a"), order("b")]))
    return database


def test_the_line_of_a_request_tells_what_it_was_and_who_asked(shop: Database) -> None:
    with heard() as lines, guarded(shop) as client:
        headers = bearing(signed(role="customer", customer_id="ann")) | TRACEPARENT
        body = {"query": NAMED}
        client.post("/graphql", json=body, headers={**headers, "X-Request-Id": "mine"})
        client.post("/graphql", json=body)
    first, second = named(lines, "request")
    assert first.pop("ms") > 0
    assert first == {
        "event": "request",
        "log_level": "info",
        "request_id": "mine",
        "trace_id": TRACE,
        "route": "/graphql",
        "status": 200,
        "client": "testclient",
        "operation": "Named",
        "outcome": "ok",
        "cost": 7,
        "role": "customer",
    }
    assert (second["status"], second["outcome"]) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "traceparent", ["", "00-short-01", f"00-{'0' * 32}-b7ad6b7169203331-01", "x" * 5_000]
)
def test_a_trace_that_is_none_is_not_told(traceparent: str, shop: Database) -> None:
    with heard() as lines, TestClient(create_app(settings(shop.api_dsn))) as client:
        client.post("/graphql", json={"query": NAMED}, headers={"traceparent": traceparent})
    (line,) = named(lines, "request")
    assert "trace_id" not in line


def test_only_what_was_not_answered_is_told_where_that_is_asked_for(shop: Database) -> None:
    app = create_app(settings(shop.api_dsn, api_log_requests=False))
    with heard() as lines, TestClient(app) as client:
        for query in (NAMED, "{ nothing }", "{ orders(first: -1) { totalCount } }"):
            client.post("/graphql", json={"query": query})
        client.get("/nowhere")
    told = [
        (line["route"], line["status"], line.get("outcome")) for line in named(lines, "request")
    ]
    assert told == [
        ("/graphql", 200, "GRAPHQL_VALIDATION_FAILED"),
        ("/graphql", 200, "BAD_USER_INPUT"),
        ("other", 404, None),
    ]


def test_a_socket_has_one_line_at_its_end(shop: Database) -> None:
    with heard() as lines, guarded(shop) as client:
        with connected(client, authorization=f"Bearer {signed()}") as socket:
            for id_ in ("1", "2"):
                subscribe(socket, NAMED, id_)
                next_of(socket, id_)
                socket.receive_json()
            assert named(lines, "socket") == []
            socket.close(1000)
        with client.websocket_connect("/graphql", subprotocols=["other"]) as refused:
            assert refused.receive()["code"] == 4406
    first, second = named(lines, "socket")
    assert first["request_id"]
    told = {"route": "/graphql", "code": 1000, "operations": 2, "role": "operator"}
    assert told.items() <= first.items()
    assert second["code"] == 4406


def slow_line(lines: list[Line]) -> Line:
    (line,) = named(lines, "slow operation")
    return line


def asked(client: TestClient, id_: str) -> dict[str, Any]:
    """The answer to the operation with something private in each place that takes a value."""
    body = {"query": PRIVATE, "variables": {"who": IN_A_VARIABLE, "id": id_}}
    answer: dict[str, Any] = client.post(
        "/graphql", json=body, headers={"X-Request-Id": "mine"}
    ).json()
    return answer


@pytest.mark.parametrize("way", ["compiled", "refused arguments"])
def test_a_slow_operation_is_told_with_its_shape_and_without_a_value(
    way: str, shop: Database
) -> None:
    id_ = packed(["Order", "secret-id"]) if way == "compiled" else "secret-id"
    app = create_app(settings(shop.api_dsn, api_slow_operation_ms=1))
    with heard() as lines, TestClient(app) as client:
        answer = asked(client, id_)
        assert answer["data"]["orders"] == {"nodes": [], "totalCount": 0}
        seen = str(lines)
        for value in (IN_A_VARIABLE, IN_LINE, AS_A_KEY, id_):
            assert value not in seen
    line = slow_line(lines)
    assert (line["operation"], line["way"], line["cost"]) == ("Private", way, 55)
    assert line["document"] == sha256(PRIVATE.encode()).hexdigest()
    assert (line["request_id"], line["role"]) == ("mine", "operator")
    assert line["ms"] >= 1
    assert line["bytes"] >= len(orjson.dumps(answer))
    if way == "compiled":
        assert line["outcome"] == "ok"
        assert line["shape"].startswith("orders(where (")
        assert "customer_id = %s" in line["shape"].replace('"', "")
        assert "by order_id desc), order(key), node(ids of Order)" in line["shape"]
        assert re.fullmatch("[0-9a-f]{16}", line["statement"])


def test_an_operation_that_ran_out_of_time_is_told_as_slow(shop: Database) -> None:
    given = {"api_slow_operation_ms": 100, "api_statement_timeout_s": 0.3}
    app = create_app(settings(shop.api_dsn, **given))
    with heard() as lines, TestClient(app) as client, psycopg.connect(shop.dsn) as holding:
        holding.execute("LOCK TABLE build_1.orders")
        answer = client.post("/graphql", json={"query": NAMED}).json()
    assert answer["errors"][0]["extensions"]["code"] == "TIMEOUT"
    line = slow_line(lines)
    assert line["outcome"] == "TIMEOUT"
    assert line["shape"].startswith("orders(")


def test_a_slow_computation_of_a_live_query_is_told(shop: Database) -> None:
    app = create_app(settings(shop.api_dsn, api_slow_operation_ms=1))
    with heard() as lines, TestClient(app) as client, connected(client) as socket:
        subscribe(socket, NAMED.replace("query", "subscription"))
        next_of(socket)
        line = named(lines, "slow operation")[0]
    assert line["operation"] == "Named"


def test_zero_switches_it_off_and_a_quick_operation_is_not_told(shop: Database) -> None:
    with heard() as lines:
        for slow_ms in (0, 30_000):
            app = create_app(settings(shop.api_dsn, api_slow_operation_ms=slow_ms))
            with TestClient(app) as client:
                client.post("/graphql", json={"query": NAMED})
    assert named(lines, "slow operation") == []


def test_a_wait_for_events_makes_no_operation_slow() -> None:
    metrics = Metrics()
    figures = Figures(metrics, Names(), slow_s=1)
    waited = Ran(document="", role="operator", request_id="", seconds=9, worked_s=0.9)
    worked = Ran(document="", role="operator", request_id="", seconds=9, worked_s=1)
    with heard() as lines:
        figures.answered(Answer(body={}, ran=waited), over="http")
        assert lines == []
        figures.answered(Answer(body={}, ran=worked), over="http")
    assert slow_line(lines)["waited_ms"] == 8_000
