"""Behind PgBouncer in transaction mode: the same answers, and nothing left on its connections."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.fixtures.databases import Database
from tests.fixtures.poolers import transaction_pooler
from tests.integration.api.conftest import Api, settings
from tests.integration.api.shop import busy_shop, insert, position, stock
from tests.integration.api.test_callers import LIGHT, RULES, SECRET, ask, customer, signed
from tests.integration.api.test_waiting import move, token_of, waiting_on

QUERY: Final = """{ orders(first: 50) { totalCount nodes { id orderId amount placedAt updatedAt
    items { sku } payments { nodes { paymentId occurredAt } } } }
  dailySales(first: 50) { nodes { day currency ordered } } }"""
PLAIN: Final = """{ __schema { queryType { name } }
  orders(first: 5) { nodes { orderId placedAt } } dailySales(first: 50) { nodes { day } } }"""
LEFT: Final = """SELECT current_setting('role'), current_setting('TimeZone'),
    current_setting('statement_timeout'), current_setting('transaction_read_only'),
    (SELECT count(*) FROM pg_prepared_statements)"""
UNTOUCHED: Final = ("none", "Asia/Kathmandu", "0", "off", 0)


@pytest.fixture(scope="module")
def shop(shared_database: Database) -> Database:
    """A busy shop on a server whose own clock is far from UTC."""
    stock(shared_database.dsn, busy_shop())
    with psycopg.connect(shared_database.dsn, autocommit=True) as connection:
        insert(connection, "positions", [position("orders", 0, 11), position("payments", 0, 1)])
        name = shared_database.name
        connection.execute(f"ALTER DATABASE {name} SET TimeZone = 'Asia/Kathmandu'".encode())
    return shared_database


@pytest.fixture(scope="module")
def pooled_dsn(shop: Database) -> Iterator[str]:
    """The shop by way of two connections, fewer than the API holds."""
    with transaction_pooler(shop.api_dsn, size=2) as dsn:
        yield dsn


@contextmanager
def behind(shop: Database, pooled_dsn: str, **given: Any) -> Iterator[TestClient]:
    """An API that was told of the pooler."""
    told = {"api_pooler": "transaction", "notify_database_url": shop.api_dsn}
    with TestClient(create_app(settings(pooled_dsn, **told, **given))) as client:
        yield client


@pytest.mark.parametrize("query", [QUERY, PLAIN])
def test_answers_behind_a_transaction_pooler_are_the_same(
    shop: Database, pooled_dsn: str, query: str
) -> None:
    with (
        TestClient(create_app(settings(shop.api_dsn))) as direct,
        behind(shop, pooled_dsn) as pooled,
        ThreadPoolExecutor(8) as threads,
    ):
        expected = Api(direct).data(query)
        assert expected["orders"]["nodes"]
        answers = threads.map(lambda _: Api(pooled).data(query), range(40))
        assert all(answer == expected for answer in answers)


def test_nothing_is_left_on_connections_that_others_use_too(
    shop: Database, pooled_dsn: str
) -> None:
    with (
        behind(shop, pooled_dsn) as client,
        ThreadPoolExecutor(8) as threads,
        psycopg.connect(pooled_dsn, autocommit=True, prepare_threshold=None) as other,
    ):
        for _ in range(5):
            [*threads.map(lambda _: Api(client).data(QUERY), range(16))]
            assert other.execute(LEFT).fetchone() == UNTOUCHED


def test_claims_never_leak_between_transactions_that_share_a_connection(
    shop: Database, pooled_dsn: str
) -> None:
    def one(turn: int) -> None:
        name = ("ann", "bob", None, "nobody")[turn % 4]
        data = ask(client, signed() if name is None else customer(name), LIGHT)
        seen = {row["customerId"] for row in data["orders"]["nodes"]}
        assert len(seen) == 4 if name is None else seen <= {name}
        assert bool(seen) is (name != "nobody")

    with (
        behind(shop, pooled_dsn, api_jwt_secret=SECRET, **RULES) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        assert len([*threads.map(one, range(80))]) == 80


def test_a_statement_is_ended_in_time_behind_a_pooler(shop: Database, pooled_dsn: str) -> None:
    with (
        behind(shop, pooled_dsn, api_statement_timeout_s=0.5, api_acquire_timeout_s=20) as client,
        psycopg.connect(shop.dsn) as locking,
    ):
        locking.execute("LOCK TABLE build_1.orders IN ACCESS EXCLUSIVE MODE")
        assert Api(client).code("{ orders { totalCount } }") == "TIMEOUT"
        locking.rollback()
        assert Api(client).data("{ orders { totalCount } }")


def test_waiting_operations_are_woken_past_the_pooler(shop: Database, pooled_dsn: str) -> None:
    given = {"api_pooler": "transaction", "notify_database_url": shop.api_dsn}
    with waiting_on(pooled_dsn, **given) as api:
        api.listens()
        asked = api.ask_aside(atLeast="orders:0:11", timeoutMs=10_000)
        move(shop.dsn, 11)
        assert token_of(asked.result(20)).startswith("orders:0:11,")


def test_a_pooler_that_drops_settings_is_refused_with_a_word(
    shop: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        transaction_pooler(shop.api_dsn, size=2, ignored="options") as dsn,
        TestClient(create_app(settings(dsn))) as client,
    ):
        assert Api(client).code(QUERY) == "UNAVAILABLE"
        assert client.get("/readyz").status_code == 503
    assert "TimeZone is 'Asia/Kathmandu' and not 'UTC'" in caplog.text
    assert "set VIEWKEEPER_API_POOLER=transaction" in caplog.text
