"""Figures of the API: by operation and outcome, over every transport, with bounded labels."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from api.app import create_app
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import settings
from tests.integration.api.shop import Shop, insert, order, position, stock
from tests.integration.api.test_events import STREAM, events, serving_at
from tests.integration.api.test_live import change, connected, next_of, subscribe

NAMED = "query Named { orders(first: 3) { nodes { orderId } } }"
FOLLOWED = 'subscription Followed { order(orderId: "a") { status } }'


class Scrape:
    """One reading of /metrics."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """The sum of what has these labels."""
        return sum(
            each.value
            for each in self._samples
            if each.name == f"viewkeeper_api_{name}" and labels.items() <= each.labels.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        """All that a label says."""
        return {
            each.labels[label] for each in self._samples if each.name == f"viewkeeper_api_{name}"
        }


def scrape(client: TestClient | httpx.Client) -> Scrape:
    """What the figures are now."""
    return Scrape(client.get("/metrics").text)


@pytest.fixture
def shop(database: Database) -> Database:
    """One order."""
    stock(database.dsn, Shop([order("a")]))
    with psycopg.connect(database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
    return database


@pytest.fixture
def client(shop: Database) -> Iterator[TestClient]:
    """An API on it."""
    with TestClient(create_app(settings(shop.api_dsn, api_max_cost=200))) as client:
        yield client


def post(client: TestClient, query: str, **more: Any) -> Mapping[str, Any]:
    body: dict[str, Any] = client.post("/graphql", json={"query": query, **more}).json()
    return body


def test_operations_are_counted_by_name_and_outcome(client: TestClient) -> None:
    post(client, NAMED)
    post(client, NAMED)
    post(client, "{ __typename }")
    post(client, "query Big { orders(first: 100) { nodes { orderId amount status } } }")
    post(client, "{ nothing }")
    demand = {"consistency": {"atLeast": "orders:0:900", "timeoutMs": 0}}
    post(client, NAMED, extensions=demand)
    client.post("/graphql", content=b"not JSON", headers={"Content-Type": "application/json"})
    figures = scrape(client)

    def counted(operation: str, outcome: str) -> float:
        return figures.value("operations_total", operation=operation, outcome=outcome, over="http")

    assert counted("Named", "ok") == 2
    assert counted("Named", "STALE") == 1
    assert counted("", "ok") == 1
    assert counted("Big", "QUERY_TOO_COMPLEX") == 1, "refused, and still known by its name"
    assert counted("", "GRAPHQL_VALIDATION_FAILED") == 1
    assert counted("", "BAD_REQUEST") == 1
    assert figures.value("operation_seconds_count", operation="Named") == 3
    assert figures.value("operation_cost_sum", operation="Named") == 3 * (1 + 3 * 2)
    assert figures.value("operation_cost_sum", operation="Big") == 1 + 100 * 4


def test_operations_over_a_websocket_are_counted(client: TestClient, shop: Database) -> None:
    with connected(client) as socket:
        subscribe(socket, NAMED, "1")
        next_of(socket, "1")
        assert socket.receive_json() == {"type": "complete", "id": "1"}
        subscribe(socket, "{ nothing }", "2")
        assert socket.receive_json()["type"] == "error"
        subscribe(socket, FOLLOWED, "3")
        next_of(socket, "3")
        change(shop.dsn, 1, "SHIPPED")
        next_of(socket, "3")
        figures = scrape(client)
        assert figures.value("live_followers") == 1
        assert figures.value("live_queries") == 1
        assert figures.value("sockets") == 1
    over = {"over": "websocket"}
    assert figures.value("operations_total", operation="Named", outcome="ok", **over) == 1
    refused = {"operation": "", "outcome": "GRAPHQL_VALIDATION_FAILED"}
    assert figures.value("operations_total", **refused, **over) == 1
    assert figures.value("operations_total", operation="Followed", outcome="ok", **over) == 1
    assert figures.value("live_computations_total", operation="Followed", outcome="ok") >= 2


def test_operations_over_a_stream_are_counted_and_its_life_is_no_duration(shop: Database) -> None:
    with (
        serving_at(shop.api_dsn) as address,
        httpx.Client(base_url=address.removesuffix("/graphql"), timeout=60) as client,
    ):
        once = client.post("/graphql", json={"query": NAMED}, headers=STREAM)
        assert [name for name, _ in events(once)] == ["next", "complete"]
        with client.stream("POST", "/graphql", json={"query": FOLLOWED}, headers=STREAM) as stream:
            found = events(stream)  # kept: the end of a generator ends the stream
            next(found)
            assert scrape(client).value("live_followers") == 1
        eventually(lambda: not scrape(client).value("live_followers"), 60, "the stream has ended")
        refused = client.post("/graphql", content=b"{", headers=STREAM)
        assert refused.status_code == 415
        figures = scrape(client)
    over = {"over": "sse"}
    assert figures.value("operations_total", operation="Named", outcome="ok", **over) == 1
    assert figures.value("operations_total", operation="Followed", outcome="ok", **over) == 1
    assert figures.value("operations_total", outcome="BAD_REQUEST", **over) == 1
    assert figures.value("requests_total", route="/graphql") == 3
    assert figures.value("request_seconds_count", route="/graphql") == 1, "the refusal alone"


def test_names_that_clients_make_up_end_as_one_label(client: TestClient) -> None:
    for number in range(120):
        post(client, f"query Q{number} {{ __typename }}")
    figures = scrape(client)
    assert len(figures.labels("operations_total", "operation")) == 101
    assert figures.value("operations_total", operation="other", outcome="ok") == 20


def test_with_trusted_documents_only_their_names_are_labels(shop: Database, tmp_path: Path) -> None:
    manifest = tmp_path / "documents.json"
    manifest.write_text(json.dumps({"1": NAMED}))
    app = create_app(settings(shop.api_dsn, api_trusted_documents=manifest))
    with TestClient(app) as client:
        post(client, NAMED)
        post(client, "query Mine { __typename }")
        labels = scrape(client).labels("operations_total", "operation")
    assert labels == {"Named", "other"}


def test_the_pool_is_seen_at_work_and_waited_for(shop: Database) -> None:
    given = {"api_connections": 1, "api_acquire_timeout_s": 60, "api_statement_timeout_s": 60}
    with (
        serving_at(shop.api_dsn, **given) as address,
        httpx.Client(base_url=address.removesuffix("/graphql"), timeout=60) as client,
        ThreadPoolExecutor(2) as threads,
        psycopg.connect(shop.dsn) as holding,
    ):

        def is_seen(*, used: int, waited_for: int) -> bool:
            figures = scrape(client)
            seen = figures.value("connections_used"), figures.value("connections_waited_for")
            return seen == (used, waited_for)

        holding.execute("LOCK TABLE build_1.orders")
        asked = [threads.submit(client.post, address, json={"query": NAMED}) for _ in range(2)]
        eventually(lambda: is_seen(used=1, waited_for=1), 60, "one is at work, one waited for")
        holding.rollback()
        assert [each.result().status_code for each in asked] == [200, 200]
        assert is_seen(used=0, waited_for=0)


def test_operations_that_wait_for_events_are_seen(client: TestClient, shop: Database) -> None:
    with connected(client) as socket:
        demand = {"consistency": {"atLeast": "orders:0:1", "timeoutMs": 10_000}}
        subscribe(socket, NAMED, extensions=demand)
        eventually(lambda: scrape(client).value("operations_waiting") == 1, 60, "it waits")
        change(shop.dsn, 1, None)
        next_of(socket)
        assert scrape(client).value("operations_waiting") == 0
