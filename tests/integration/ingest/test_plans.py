"""How PostgreSQL carries out the statements of a batch: what a batch costs must follow from the
batch, and not from how many rows the views hold."""

from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest

from ingest.statements import statements
from rebuild.builder import event_forms
from tests.fixtures.databases import DatabaseServer
from tests.integration.api.shop import Shop, order, payment, stock
from views import CATALOGUE

ORDERS: Final = 4_000
"""Few: the fewer rows there are, the likelier it seems to the planner to pay to read them all."""
BATCH: Final = 20
SHOP: Final = Shop(
    [order(f"o{n}", customer_id=f"c{n}") for n in range(1, ORDERS + 1)],
    [payment(f"o{n}", "p") for n in range(1, ORDERS + 1)],
)
STAGE: Final = (
    f"""INSERT INTO staged_orders (order_id, version, lowest_version)
        SELECT 'o' || n, 2, 2 FROM generate_series(1, {BATCH}) AS n""",
    f"""INSERT INTO staged_payments (order_id, payment_id, version, lowest_version)
        SELECT 'o' || n, 'p', 2, 2 FROM generate_series(1, {BATCH}) AS n""",
)
VIEWS: Final = ("orders", "payments", "customer_totals")
SQL: Final = statements("build_1", CATALOGUE, event_forms())
OF_A_BATCH: Final = {
    **{
        f"{name} of {view.view.name}": sql
        for view in SQL.views
        for name in ("make", "meet", "ask", "insert", "update")
        if (sql := getattr(view, name)) is not None
    },
    **{
        f"{name} of {each.aggregate.name}": getattr(each, name)
        for each in SQL.aggregates
        for name in ("add", "drop")
    },
}


@pytest.fixture(scope="module")
def connection(database_server: DatabaseServer) -> Iterator[psycopg.Connection[Any]]:
    """In a transaction, with a batch staged; PostgreSQL knows how large the views are."""
    database = database_server.create(template=database_server.template.name)
    stock(database.dsn, SHOP)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        for statement in ("ANALYZE", *SQL.temporary, "BEGIN", *STAGE):
            connection.execute(statement.encode())
        yield connection
    database_server.drop(database)


@pytest.mark.parametrize("name", OF_A_BATCH)
def test_rows_of_views_are_looked_up_and_never_all_read(
    connection: psycopg.Connection[Any], name: str
) -> None:
    rows = connection.execute(f"EXPLAIN {OF_A_BATCH[name]}".encode()).fetchall()
    lines = [line for (line,) in rows]
    assert not any(f"Seq Scan on {view} " in line for line in lines for view in VIEWS), lines


def test_such_a_plan_would_be_seen(connection: psycopg.Connection[Any]) -> None:
    rows = connection.execute(
        "EXPLAIN SELECT FROM build_1.orders o JOIN met_orders m USING (order_id)"
    ).fetchall()
    assert any("Seq Scan on orders o" in line for (line,) in rows)
