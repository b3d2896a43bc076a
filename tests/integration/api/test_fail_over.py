"""The primary dies and its standby takes over: the API, its listener and live queries go across."""

import time
from collections.abc import Iterator

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.faults.harness.pair import Pair
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import Api, settings
from tests.integration.api.shop import Shop, insert, order, position, stock
from tests.integration.api.test_live import (
    ORDER,
    change,
    connected,
    next_of,
    service,
    status_of,
    subscribe,
)

QUERY = '{ order(orderId: "a") { status } }'


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A shop with one order, on two servers."""
    with Pair() as servers:
        stock(servers.dsn, Shop([order("a")]))
        with psycopg.connect(servers.dsn) as connection:
            insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
        yield servers


def failed_over(pair: Pair) -> tuple[float, float]:
    """Let the standby take over under an API with a live query.

    Seconds from the promotion to an answer, and to the live query's next result.
    """
    with TestClient(create_app(settings(pair.api_dsn))) as client, connected(client) as socket:
        api = Api(client)
        eventually(lambda: service(client).movements.listening, 60, "the API listens")
        subscribe(socket, ORDER)
        assert status_of(next_of(socket)) == "PLACED"
        change(pair.dsn, 1, "CONFIRMED")
        assert status_of(next_of(socket)) == "CONFIRMED"
        pair.part()
        pair.primary.kill()
        assert api.code(QUERY) == "UNAVAILABLE"
        pair.standby.promote()
        began_at_s = time.monotonic()
        eventually(lambda: "data" in api.answer(QUERY), 60, "answers from the new primary")
        answered_s = time.monotonic() - began_at_s
        assert api.data(QUERY) == {"order": {"status": "CONFIRMED"}}
        change(pair.dsn, 2, "SHIPPED")
        payload = next_of(socket)
        followed_s = time.monotonic() - began_at_s
        assert status_of(payload) == "SHIPPED"
        assert payload["extensions"]["consistency"]["position"].startswith("orders:0:2,")
        eventually(lambda: service(client).movements.listening, 60, "it listens there")
        return answered_s, followed_s


def test_the_api_and_its_live_queries_go_across_to_the_new_primary(pair: Pair) -> None:
    failed_over(pair)


@pytest.mark.proof
def test_the_api_is_back_within_five_seconds_of_the_promotion(pair: Pair) -> None:
    answered_s, followed_s = failed_over(pair)
    assert answered_s < 5
    assert followed_s < 5
