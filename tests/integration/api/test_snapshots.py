"""One operation, one snapshot: across views, while others write, and while the build changes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.fixtures.databases import Database
from tests.integration.api.conftest import Api
from tests.integration.api.shop import Shop, insert, order, position, stock

ALL = """{ orders(first: 100) { nodes { orderId amount payments { totalCount } } }
  customerTotals { nodes { ordered orders { nodes { amount } } } }
  dailySales { nodes { ordered } }
  position { token } }"""

MOVE = (
    "UPDATE build_1.orders SET amount = amount - %(by)s WHERE order_id = %(from)s",
    "UPDATE build_1.orders SET amount = amount + %(by)s WHERE order_id = %(to)s",
    "UPDATE build_1.customer_totals SET ordered = ordered + %(grow)s",
    "UPDATE build_1.daily_sales SET ordered = ordered + %(grow)s",
    "UPDATE build_1.orders SET amount = amount + %(grow)s WHERE order_id = %(to)s",
    "UPDATE build_1.positions SET next_offset = next_offset + %(grow)s",
)


@contextmanager
def _writer(dsn: str) -> Iterator[threading.Event]:
    """Moves money between orders, and adds one to one of them, a transaction at a time."""
    stop, moved = threading.Event(), threading.Event()

    def write() -> None:
        with psycopg.connect(dsn) as connection:
            turn = 0
            while not stop.is_set():
                turn += 1
                places = {"from": f"o{turn % 5}", "to": f"o{(turn + 2) % 5}"}
                for statement in MOVE:
                    connection.execute(statement.encode(), {"by": 3, "grow": 1, **places})
                connection.commit()
                moved.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield moved
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("way", ["compiled", "plain"])
def test_every_answer_is_one_snapshot_of_all_views_while_money_moves(
    way: str, api: Api, database: Database
) -> None:
    query = ALL if way == "compiled" else f"{ALL.rstrip()[:-1]} __schema {{ description }} }}"
    stock(database.dsn, Shop([order(f"o{n}", amount=Decimal(1000)) for n in range(5)]))
    with psycopg.connect(database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 1)])
    tokens = []
    with _writer(database.dsn) as moved:
        assert moved.wait(30)
        for _ in range(40):
            body = api.answer(query)
            data = body["data"]
            total = _sum(data["orders"]["nodes"], "amount")
            (of_customer,) = data["customerTotals"]["nodes"]
            assert Decimal(of_customer["ordered"]) == total
            assert _sum(of_customer["orders"]["nodes"], "amount") == total
            assert _sum(data["dailySales"]["nodes"], "ordered") == total
            token = data["position"]["token"]
            assert body["extensions"]["consistency"]["position"] == token
            offset = int(token.partition("@")[0].split(":")[2])
            assert total == 5000 + offset, "the position belongs to the rows"
            tokens.append(offset)
    assert tokens == sorted(tokens)
    assert len(set(tokens)) > 5, "the writer was not seen: nothing was proved"


def _sum(rows: list[dict[str, Any]], name: str) -> Decimal:
    return sum((Decimal(row[name]) for row in rows), Decimal(0))


def _copy_build(dsn: str, *, amount: int) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO ingest.builds (number, state, made_by) VALUES (2, 'ready', 'test')"
        )
        connection.execute("CREATE SCHEMA build_2")
        for table in ("orders", "payments", "customer_totals", "daily_sales", "positions"):
            connection.execute(
                f"CREATE TABLE build_2.{table} (LIKE build_1.{table} INCLUDING ALL)".encode()
            )
        connection.execute("GRANT USAGE ON SCHEMA build_2 TO viewkeeper_reader")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA build_2 TO viewkeeper_reader")
        connection.execute(
            "INSERT INTO build_2.orders (order_id, version, event_id, status, customer_id,"
            " currency, amount, items, placed_at, updated_at, visible, source_topic,"
            " source_partition, source_offset, source_schema_id)"
            " SELECT order_id, version, event_id, status, customer_id, currency, %s, items,"
            " placed_at, updated_at, visible, source_topic, source_partition, source_offset,"
            " source_schema_id FROM build_1.orders",
            (amount,),
        )


SWAP = (
    "UPDATE ingest.builds SET state = 'previous' WHERE number = 1",
    "UPDATE ingest.builds SET state = 'live' WHERE number = 2",
)


def _asked(api: Api) -> tuple[str, str]:
    body = api.answer('{ order(orderId: "a") { amount } }')
    build: str = body["extensions"]["consistency"]["build"]
    amount: str = body["data"]["order"]["amount"]
    return build, amount


def test_a_swap_is_followed_by_the_next_operation(api: Api, database: Database) -> None:
    stock(database.dsn, Shop([order("a")]))
    _copy_build(database.dsn, amount=77)
    assert _asked(api) == ("build_1", "10.0000")
    with psycopg.connect(database.dsn) as connection:
        for statement in SWAP:
            connection.execute(statement.encode())
    assert _asked(api) == ("build_2", "77.0000")
    with psycopg.connect(database.dsn) as connection:
        connection.execute("UPDATE ingest.builds SET state = 'ready' WHERE number = 2")
        connection.execute("UPDATE ingest.builds SET state = 'live' WHERE number = 1")
        connection.execute("DROP SCHEMA build_2 CASCADE")
    assert _asked(api) == ("build_1", "10.0000"), "the build it believed live is gone"


def _positions(dsn: str, *rows: dict[str, Any]) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM build_1.positions")
        insert(connection, "positions", rows)


def _now(dsn: str) -> datetime:
    """The database's clock, by which freshness is told."""
    with psycopg.connect(dsn, options="-c TimeZone=UTC") as connection:
        (now,) = connection.execute("SELECT now()").fetchone() or ()
    assert isinstance(now, datetime)
    return now


POSITION = """{ position { token asOf lagMs caughtUp build
  partitions { topic partition offset endOffset lagEvents eventAt completeAsOf } } }"""


def test_freshness_is_the_oldest_partition_and_unknown_while_one_is(
    api: Api, database: Database
) -> None:
    now = _now(database.dsn)
    old, new = now - timedelta(seconds=60), now
    _positions(
        database.dsn,
        position("orders", 0, 11, complete_as_of=new),
        position("orders", 1, 0, end_offset=3, complete_as_of=new),
        position("payments", 0, 5, complete_as_of=old),
        position("other", 0, 5, complete_as_of=None),
    )
    shown = api.data(POSITION)["position"]
    assert shown["token"].startswith("orders:0:10,payments:0:4@")
    assert shown["asOf"] == old.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert 60_000 <= shown["lagMs"] < 120_000
    assert shown["caughtUp"] is False
    assert [each["offset"] for each in shown["partitions"]] == ["10", None, "4"]
    assert [each["lagEvents"] for each in shown["partitions"]] == ["0", "3", "0"]

    _positions(
        database.dsn,
        position("orders", 0, 11, complete_as_of=_now(database.dsn)),
        position("payments", 0, 5, complete_as_of=_now(database.dsn)),
    )
    body = api.answer(POSITION)
    said = body["extensions"]["consistency"]
    assert said["caughtUp"] is True
    token = said["position"]
    for unknown in (
        [position("orders", 0, 11, complete_as_of=new)],
        [position("orders", 0, 11, complete_as_of=new), position("payments", 0, 5)],
        [],
    ):
        _positions(database.dsn, *unknown)
        said = api.answer(POSITION)["extensions"]["consistency"]
        assert (said["asOf"], said["lagMs"], said["caughtUp"]) == (None, None, False)
    assert token.count("@") == 1


def _demand(api: Api, **consistency: Any) -> dict[str, Any]:
    body = {"query": "{ position { token } }", "extensions": {"consistency": consistency}}
    answer: dict[str, Any] = api.client.post("/graphql", json=body).json()
    return answer


def test_an_answer_contains_what_it_must_or_says_that_it_is_stale(
    api: Api, database: Database
) -> None:
    _positions(
        database.dsn,
        position("orders", 0, 11, complete_as_of=_now(database.dsn) - timedelta(seconds=9)),
        position("payments", 0, 5, complete_as_of=_now(database.dsn)),
    )
    token = api.data(POSITION)["position"]["token"]
    for at_least in (token, "", "orders:0:10", token.partition("@")[0]):
        assert "errors" not in _demand(api, atLeast=at_least), at_least
    assert "errors" not in _demand(api, maxStalenessMs=60_000)

    for demand in ({"atLeast": "orders:0:11"}, {"atLeast": "orders:9:0"}, {"maxStalenessMs": 10}):
        answer = _demand(api, **demand)
        (error,) = answer["errors"]
        assert "data" not in answer
        assert error["extensions"]["code"] == "STALE", demand
        assert error["extensions"]["position"] == token
        assert error["extensions"]["lagMs"] >= 9000

    for wrong in ("orders", "nobody:0:1", "orders:0:1@12345678", "orders:0:1,orders:0:2"):
        (error,) = _demand(api, atLeast=wrong)["errors"]
        assert error["extensions"]["code"] == "BAD_USER_INPUT", wrong


def test_a_demand_may_come_in_headers(api: Api) -> None:
    headers = {"Viewkeeper-At-Least": "orders:0:5"}
    body = {"query": "{ position { token } }"}
    answer = api.client.post("/graphql", json=body, headers=headers).json()
    assert answer["errors"][0]["extensions"]["code"] == "STALE"
    headers = {"Viewkeeper-Max-Staleness-Ms": "x"}
    answer = api.client.post("/graphql", json=body, headers=headers).json()
    assert answer["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
