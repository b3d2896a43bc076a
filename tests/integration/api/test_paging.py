"""Pages: forward and back over ties and deletions, Relay's rules, and cursors that are refused."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.fixtures.databases import Database
from tests.integration.api.conftest import Api, settings
from tests.integration.api.shop import Shop, busy_shop, order, stock

PAGE = """query ($first: Int, $after: String, $last: Int, $before: String, $where: OrderWhere,
    $orderBy: [OrderSort!]) {
  orders(first: $first, after: $after, last: $last, before: $before, where: $where,
      orderBy: $orderBy) {
    edges { cursor node { orderId placedAt status } } nodes { orderId }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    totalCount totalCountIsExact
  } }"""

ORDERS: list[tuple[list[dict[str, str]], list[tuple[str, bool]]]] = [
    ([], [("order_id", False)]),
    ([{"field": "ORDER_ID", "direction": "DESC"}], [("order_id", True)]),
    ([{"field": "PLACED_AT"}], [("placed_at", False), ("order_id", False)]),
    (
        [{"field": "PLACED_AT", "direction": "DESC"}],
        [("placed_at", True), ("order_id", True)],
    ),
    (
        [{"field": "STATUS", "direction": "DESC"}, {"field": "PLACED_AT", "direction": "ASC"}],
        [("status", True), ("placed_at", False), ("order_id", False)],
    ),
]


def expected(rows: list[dict[str, Any]], terms: list[tuple[str, bool]]) -> list[str]:
    """The ids of rows in an order, by plain sorting."""
    for name, descending in reversed(terms):
        rows = sorted(rows, key=_member(name), reverse=descending)
    return [row["order_id"] for row in rows]


def _member(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda row: row[name]


def ids(page: dict[str, Any]) -> list[str]:
    """The ids on a page."""
    assert [edge["node"]["orderId"] for edge in page["edges"]] == [
        node["orderId"] for node in page["nodes"]
    ]
    return [node["orderId"] for node in page["nodes"]]


@pytest.mark.parametrize(("order_by", "terms"), ORDERS)
def test_pages_forward_and_back_show_every_row_once_in_order(
    api: Api, database: Database, order_by: list[dict[str, str]], terms: list[tuple[str, bool]]
) -> None:
    shop = busy_shop(orders=60)
    stock(database.dsn, shop)
    wanted = expected(shop.visible, terms)
    seen: list[str] = []
    cursor = None
    while True:
        page = api.data(PAGE, first=7, after=cursor, orderBy=order_by)["orders"]
        assert page["pageInfo"]["hasPreviousPage"] == bool(seen)
        seen += ids(page)
        cursor = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert seen == wanted
    back = ids(page)
    while page["pageInfo"]["hasPreviousPage"]:
        before = page["pageInfo"]["startCursor"]
        page = api.data(PAGE, last=7, before=before, orderBy=order_by)["orders"]
        assert page["pageInfo"]["hasNextPage"]
        back = ids(page) + back
    assert back == wanted


def test_rows_that_come_and_go_between_pages_shift_nothing(api: Api, database: Database) -> None:
    stock(database.dsn, Shop([order(f"o{n}") for n in range(6)]))
    first = api.data(PAGE, first=3)["orders"]
    with psycopg.connect(database.dsn) as connection:
        connection.execute("UPDATE build_1.orders SET visible = false WHERE order_id <= 'o3'")
    second = api.data(PAGE, first=3, after=first["pageInfo"]["endCursor"])["orders"]
    assert ids(second) == ["o4", "o5"]
    assert second["pageInfo"]["hasPreviousPage"] is False, "nothing lies before it any more"


def test_a_window_between_two_cursors_knows_what_lies_outside(api: Api, database: Database) -> None:
    stock(database.dsn, Shop([order(f"o{n}") for n in range(8)]))
    cursors = [edge["cursor"] for edge in api.data(PAGE, first=8)["orders"]["edges"]]
    inside = {"after": cursors[1], "before": cursors[5]}
    whole = api.data(PAGE, **inside, first=10)["orders"]
    assert ids(whole) == ["o2", "o3", "o4"]
    assert (whole["pageInfo"]["hasPreviousPage"], whole["pageInfo"]["hasNextPage"]) == (True, True)
    assert ids(api.data(PAGE, **inside, first=2)["orders"]) == ["o2", "o3"]
    assert ids(api.data(PAGE, **inside, last=2)["orders"]) == ["o3", "o4"]
    assert ids(api.data(PAGE, before=cursors[2])["orders"]) == ["o0", "o1"]


def test_a_page_of_nothing_still_knows_what_follows(api: Api, database: Database) -> None:
    stock(database.dsn, Shop([order("a")]))
    page = api.data(PAGE, first=0)["orders"]
    assert page["nodes"] == []
    assert page["pageInfo"] == {
        "hasNextPage": True,
        "hasPreviousPage": False,
        "startCursor": None,
        "endCursor": None,
    }


def test_pages_have_20_rows_unless_asked_and_100_at_most(api: Api, database: Database) -> None:
    stock(database.dsn, Shop([order(f"o{n:03}") for n in range(130)]))
    assert len(ids(api.data(PAGE)["orders"])) == 20
    assert len(ids(api.data(PAGE, first=100)["orders"])) == 100
    for wrong in ({"first": 101}, {"last": 101}, {"first": -1}, {"first": 1, "last": 1}):
        assert api.code(PAGE, **wrong) == "BAD_USER_INPUT"


def test_a_field_cannot_be_ordered_by_twice(api: Api) -> None:
    twice = [{"field": "PLACED_AT"}, {"field": "PLACED_AT", "direction": "DESC"}]
    assert api.code(PAGE, orderBy=twice) == "BAD_USER_INPUT"


def test_total_count_stops_at_its_cap_and_says_so(database: Database) -> None:
    stock(database.dsn, Shop([order(f"o{n}") for n in range(5)]))
    for cap, shown in ((4, (4, False)), (5, (5, True))):
        app = create_app(settings(database.api_dsn, api_count_cap=cap))
        with TestClient(app) as client:
            page = Api(client).data(PAGE)["orders"]
        assert (page["totalCount"], page["totalCountIsExact"]) == shown


def test_a_cursor_that_was_changed_or_comes_from_elsewhere_is_refused(
    api: Api, database: Database
) -> None:
    stock(database.dsn, Shop([order("a"), order("b")]))
    cursor = api.data(PAGE)["orders"]["edges"][0]["cursor"]
    flipped = ("A" if cursor[5] != "A" else "B").join((cursor[:5], cursor[6:]))
    for wrong in ("", "x", "a.b.c", flipped, cursor + "=", cursor[:-1], cursor.upper()):
        assert api.code(PAGE, after=wrong) == "BAD_USER_INPUT", wrong
        assert api.code(PAGE, before=wrong) == "BAD_USER_INPUT", wrong
    elsewhere: list[dict[str, Any]] = [
        {"where": {"status": {"eq": "PLACED"}}},
        {"orderBy": [{"field": "ORDER_ID", "direction": "DESC"}]},
        {"orderBy": [{"field": "PLACED_AT"}]},
    ]
    for other in elsewhere:
        assert api.code(PAGE, after=cursor, **other) == "BAD_USER_INPUT", other
    relation = """query ($after: String) { customerTotals { nodes {
        orders(after: $after) { totalCount } } } }"""
    assert api.code(relation, after=cursor) == "BAD_USER_INPUT"


def test_nested_pages_go_on_from_their_own_cursors(api: Api, database: Database) -> None:
    rows = [order("a"), order("b"), order("c"), order("d", customer_id="bob")]
    stock(database.dsn, Shop(rows))
    query = """query ($after: String) { customerTotal(customerId: "ann", currency: "EUR") {
        orders(first: 2, after: $after) { nodes { orderId } pageInfo { hasNextPage endCursor } } }
        }"""
    first = api.data(query)["customerTotal"]["orders"]
    assert first["nodes"] == [{"orderId": "a"}, {"orderId": "b"}]
    assert first["pageInfo"]["hasNextPage"]
    second = api.data(query, after=first["pageInfo"]["endCursor"])["customerTotal"]["orders"]
    assert second["nodes"] == [{"orderId": "c"}]
    assert not second["pageInfo"]["hasNextPage"]
