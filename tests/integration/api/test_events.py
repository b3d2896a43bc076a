"""GraphQL over server-sent events, on a real port: a stream has no end to wait for."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn

from api.app import create_app
from dev.ports import LOOPBACK, free_port
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import settings
from tests.integration.api.shop import Shop, insert, order, position, stock
from tests.integration.api.test_callers import RULES, SECRET
from tests.integration.api.test_live import ORDER, change, label, status_of

STREAM = {"Accept": "text/event-stream"}


@contextmanager
def serving_at(dsn: str, **given: Any) -> Iterator[str]:
    """An API on a port."""
    port = free_port()
    app = create_app(settings(dsn, **given))
    config = uvicorn.Config(
        app,
        host=LOOPBACK,
        port=port,
        log_config=None,
        timeout_graceful_shutdown=2,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, 20, "the API serves")
        yield f"http://{LOOPBACK}:{port}/graphql"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def address(database: Database) -> Iterator[str]:
    """An API on a shop with one order."""
    stock(database.dsn, Shop([order("a")]))
    with psycopg.connect(database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
    with serving_at(database.api_dsn) as address:
        yield address


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Name and data of each event."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            text = line.removeprefix("data: ")
            yield name, json.loads(text) if text else None


def test_a_stream_brings_the_current_result_and_what_changes(
    address: str, database: Database
) -> None:
    with (
        httpx.Client(timeout=20) as client,
        client.stream("POST", address, json={"query": ORDER}, headers=STREAM) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        coming = events(response)
        name, first = next(coming)
        assert (name, status_of(first)) == ("next", "PLACED")
        change(database.dsn, 1, "SHIPPED")
        name, second = next(coming)
        assert (name, status_of(second)) == ("next", "SHIPPED")
        assert label(second)["resultId"] != label(first)["resultId"]


def test_a_query_is_a_stream_of_one(address: str) -> None:
    body = {"query": '{ order(orderId: "a") { status } }'}
    response = httpx.post(address, json=body, headers=STREAM)
    (one, end) = events(response)
    assert status_of(one[1]) == "PLACED"
    assert end == ("complete", None)


def test_what_cannot_be_followed_ends_at_once(address: str) -> None:
    response = httpx.post(address, json={"query": "subscription { nothing }"}, headers=STREAM)
    (one, end) = events(response)
    assert one[1]["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
    assert end[0] == "complete"
    assert httpx.post(address, json=[], headers=STREAM).status_code == 400


def test_a_stream_needs_a_token_as_well(database: Database) -> None:
    with serving_at(database.api_dsn, api_jwt_secret=SECRET, **RULES) as address:
        assert httpx.post(address, json={"query": ORDER}, headers=STREAM).status_code == 401
