"""A caller who asks for too much in a time is told so, by every transport; others are not."""

import time
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import settings
from tests.integration.api.shop import Shop, insert, order, position, stock
from tests.integration.api.test_callers import bearing, customer, guarded, signed
from tests.integration.api.test_events import STREAM
from tests.integration.api.test_live import (
    ORDER,
    change,
    connected,
    next_of,
    service,
    status_of,
    subscribe,
)

SMALL = "{ orders { totalCount } }"
ONE_A_WHILE = {"api_rate_cost_per_s": 1, "api_rate_burst": 1}
"""One operation, then none for more than a minute."""


@pytest.fixture(scope="module")
def shop(shared_database: Database) -> Database:
    """A shop with one order."""
    stock(shared_database.dsn, Shop([order("a")]))
    with psycopg.connect(shared_database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
    return shared_database


def post(client: TestClient, query: str = SMALL, **headers: str) -> Any:
    """An answer."""
    return client.post("/graphql", json={"query": query}, headers=headers)


def limited(response: Any) -> bool:
    """Whether that is the refusal, in all its parts; else it must be an answer."""
    if response.status_code == 200:
        assert "errors" not in response.json()
        return False
    assert response.status_code == 429
    (error,) = response.json()["errors"]
    extensions = error["extensions"]
    assert extensions["code"] == "RATE_LIMITED"
    assert 0 < extensions["retryAfterMs"] <= 1_100_000
    after_s = int(response.headers["retry-after"])
    assert after_s * 1000 - 1000 < extensions["retryAfterMs"] <= after_s * 1000
    return True


def test_who_asks_for_too_much_is_told_when_to_come_again(shop: Database) -> None:
    with TestClient(create_app(settings(shop.api_dsn, **ONE_A_WHILE))) as client:
        assert not limited(post(client))
        for accept in ("application/json", "application/graphql-response+json"):
            assert limited(post(client, accept=accept))
        assert client.get("/healthz").status_code == 200
        metrics = client.get("/metrics").text
    told = [line for line in metrics.splitlines() if 'outcome="RATE_LIMITED"' in line]
    assert sum(float(line.split()[-1]) for line in told if "operations_total{" in line) == 2


def test_what_cannot_be_run_is_counted_as_well(shop: Database) -> None:
    with TestClient(create_app(settings(shop.api_dsn, **ONE_A_WHILE))) as client:
        refused = post(client, "{ nothing }").json()["errors"][0]["extensions"]
        assert refused["code"] == "GRAPHQL_VALIDATION_FAILED"
        response = post(client)
        assert limited(response)
        assert response.json()["errors"][0]["extensions"]["retryAfterMs"] > 500_000


def test_each_subject_of_a_token_has_a_budget_of_its_own(shop: Database) -> None:
    with guarded(shop, **ONE_A_WHILE) as client:
        tokens = [signed(sub="eve"), signed(sub="joe"), signed(), customer("ann"), customer("bob")]
        assert not any(limited(post(client, **bearing(token))) for token in tokens)
        assert all(limited(post(client, **bearing(token))) for token in tokens)
        again = signed(sub="eve", exp=4_000_000_000)
        assert limited(post(client, **bearing(again))), "another token of the same subject"


def test_without_rates_in_the_settings_nobody_is_limited(shop: Database) -> None:
    with TestClient(create_app(settings(shop.api_dsn))) as client:
        assert not any(limited(post(client)) for _ in range(50))


def test_sockets_and_streams_are_counted_like_requests(shop: Database) -> None:
    with TestClient(create_app(settings(shop.api_dsn, **ONE_A_WHILE))) as client:
        with connected(client) as socket:
            subscribe(socket)
            assert status_of(next_of(socket)) == "PLACED"
            for query in (ORDER, SMALL):
                subscribe(socket, query, id_="2")
                message = socket.receive_json()
                assert (message["type"], message["id"]) == ("error", "2")
                assert message["payload"][0]["extensions"]["code"] == "RATE_LIMITED"
            socket.send_json({"type": "ping"})
            assert socket.receive_json() == {"type": "pong"}, "the socket and its query stay"
        assert limited(post(client))
        assert limited(post(client, ORDER, **STREAM)), "before a stream begins"


def test_a_live_query_over_its_budget_waits_and_ends_in_the_last_state(database: Database) -> None:
    stock(database.dsn, Shop([order("a")]))
    with psycopg.connect(database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
    statements: list[str] = []
    rate = {"api_rate_cost_per_s": 200, "api_rate_burst": 1}
    app = create_app(settings(database.api_dsn, **rate), observe=statements.append)
    with TestClient(app) as client:
        eventually(lambda: service(client).movements.listening, 60, "the API listens")
        began_at = time.perf_counter()
        with connected(client) as socket:
            subscribe(socket)
            seen = [status_of(next_of(socket))]
            for offset in range(1, 21):
                change(database.dsn, offset, "SHIPPED" if offset % 2 else "CONFIRMED")
            change(database.dsn, 21, "DELIVERED")
            while seen[-1] != "DELIVERED":
                seen.append(status_of(next_of(socket)))
        took_s = time.perf_counter() - began_at
    computed = sum("order_id" in text for text in statements)
    # Each costs 100; the last one may overdraw.
    assert (computed - 1) * 100 <= 1 + 200 * took_s


def test_settings_of_proxies_and_rates_are_checked_at_start() -> None:
    with pytest.raises(ValueError, match="api_trusted_proxies"):
        settings("postgresql://x/y", api_trusted_proxies=["proxy.example"])
    given: dict[str, Any] = {"api_trusted_proxies": ["10.0.0.1", "fd00::/8"]}
    found = settings("postgresql://x/y", **given)
    assert [str(each) for each in found.api_trusted_proxies] == ["10.0.0.1/32", "fd00::/8"]
