"""The number of SQL statements of an operation, counted at the door to the database."""

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


def _counted(api: Api, query: str, *, first: int) -> int:
    api.data(query, first=first)
    return len(api.statements)


def test_a_page_of_100_orders_with_payments_costs_as_many_statements_as_one(
    api: Api, database: Database
) -> None:
    stock(database.dsn, busy_shop(orders=200))
    # The position, the orders, their payments; the first operation also asks which build is live.
    assert _counted(api, ORDERS, first=1) == 4
    assert _counted(api, ORDERS, first=1) == 3
    assert _counted(api, ORDERS, first=100) == 3


def test_deep_relations_cost_statements_by_level_and_not_by_row(
    api: Api, database: Database
) -> None:
    stock(database.dsn, busy_shop(orders=200))
    api.data("{ position { token } }")
    few, many = _counted(api, DEEP, first=3), _counted(api, DEEP, first=20)
    assert few == many == 9


def test_the_position_alone_costs_one_statement(api: Api) -> None:
    api.data("{ position { token } }")
    api.data("{ position { token } }")
    assert len(api.statements) == 1


def test_the_schema_is_told_without_the_database(api: Api) -> None:
    api.data("{ __schema { queryType { name } } __typename }")
    assert api.statements == []
