"""The number of SQL statements of an operation, counted at the door to the database."""

import pytest

from tests.fixtures.databases import Database
from tests.integration.api.conftest import Api
from tests.integration.api.shop import busy_shop, stock

ORDERS = """query ($first: Int!) { orders(first: $first) {
  nodes { id items { sku } payments(first: 20) { nodes { id } } } } }"""
DEEP = """query ($first: Int!) { orders(first: $first) { totalCount pageInfo { hasNextPage }
  nodes { orderId
    payments(first: 5) { totalCount totalCountIsExact pageInfo { hasNextPage }
      nodes { paymentId order { orderId
        customerTotals { nodes { currency orders(first: 3) { totalCount nodes { orderId } } } } }
    } } } } }"""
SEVERAL = """query ($first: Int!) { orders(first: $first) { nodes { id } }
  payments(last: $first) { edges { cursor node { id } } pageInfo { hasPreviousPage } }
  order(orderId: "o001") { orderId customerTotals { nodes { id } } }
  dailySales { totalCount } position { token partitions { offset } } __typename }"""
REFUSED = """query ($first: Int!) { orders(first: 3) {
  nodes { payments(first: $first, last: 2) { totalCount } } } }"""


@pytest.mark.parametrize("query", [ORDERS, DEEP, SEVERAL, "{ position { token } }"])
def test_an_operation_is_one_statement_whatever_it_asks_for(
    api: Api, database: Database, query: str
) -> None:
    stock(database.dsn, busy_shop(orders=200))
    api.data("{ position { token } }")
    variables = (1, 20, 100) if query != DEEP else (1, 3, 20)
    for first in variables:
        api.data(query, **({"first": first} if "$first" in query else {}))
        assert len(api.statements) == 1


def test_which_build_is_live_was_asked_before_the_first_operation(api: Api) -> None:
    api.data("{ position { token } }")
    assert len(api.statements) == 1


def test_what_is_refused_goes_the_plain_way_and_costs_statements_by_level(
    api: Api, database: Database
) -> None:
    stock(database.dsn, busy_shop(orders=200))
    api.data("{ position { token } }")
    body = api.answer(REFUSED, first=1)
    assert {error["extensions"]["code"] for error in body["errors"]} == {"BAD_USER_INPUT"}
    assert len(api.statements) == 2, "the position, and the orders"


def test_the_schema_is_told_without_the_database(api: Api) -> None:
    api.data("{ __schema { queryType { name } } __typename }")
    assert api.statements == []


def test_how_operations_are_answered_is_counted(api: Api) -> None:
    api.data("{ position { token } }")
    api.answer(REFUSED, first=1)
    api.data("{ __schema { queryType { name } } position { token } }")
    text = api.client.get("/metrics").text
    for way in ("compiled", "refused arguments", "introspection"):
        assert f'viewkeeper_api_operation_ways_total{{way="{way}"}} 1.0' in text
