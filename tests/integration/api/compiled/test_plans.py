"""How PostgreSQL carries out compiled statements on large tables: by index, and stopping in time.

Both plans that a prepared statement may get are looked at: the one for the values at hand, and the
one for any values, which PostgreSQL takes once a statement has been asked for often.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.fixtures.databases import Database
from tests.integration.api.compiled.both import Both, both_ways
from tests.integration.api.shop import AGGREGATES
from views.ddl import CLAIM, CUSTOMER

ORDERS = 40_000
MOST_SORTED = 200
MOST_READ = 200
"""Rows, for an operation of a customer who has ten orders and twenty payments."""

FILL = (
    f"""INSERT INTO build_1.orders (order_id, version, event_id, status, customer_id, currency,
        amount, items, placed_at, updated_at, visible, source_topic, source_partition,
        source_offset, source_schema_id)
    SELECT 'o' || n, 1, 'e', (ARRAY['PLACED', 'SHIPPED', 'DELIVERED'])[1 + n % 3],
        'c' || n % 4000, 'EUR', 10, '[]', timestamptz '2026-01-01 00:00Z' + n * interval '1 min',
        now(), n % 50 <> 0, 'orders', 0, n, 1 FROM generate_series(1, {ORDERS}) AS n""",
    f"""INSERT INTO build_1.payments (order_id, payment_id, version, event_id, status, currency,
        amount, refunded_amount, method, occurred_at, source_topic, source_partition,
        source_offset, source_schema_id)
    SELECT 'o' || n % {ORDERS}, 'p' || n, 1, 'e', 'CAPTURED', 'EUR', 5, 0, 'card',
        timestamptz '2026-01-01 00:00Z' + n * interval '1 min', 'payments', 0, n, 1
        FROM generate_series(1, {ORDERS * 2}) AS n""",
    *AGGREGATES,
)

PAYMENTS = "payments(first: 5) { totalCount nodes { paymentId order { orderId } } }"
OPERATIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "a row by its key": (
        "query ($id: String!) { order(orderId: $id) { customerTotals { nodes { paid } } } }",
        {"id": "o7"},
    ),
    "a page by key": ("{ orders { nodes { orderId } pageInfo { hasNextPage endCursor } } }", {}),
    "its last page": ("{ orders(last: 5) { nodes { orderId } pageInfo { hasPreviousPage } } }", {}),
    "a page of one status with payments": (
        "query ($s: OrderStatus!) { orders(where: {status: {eq: $s}}) { nodes { orderId "
        f"{PAYMENTS} }} }} }}",
        {"s": "PLACED"},
    ),
    "the newest": (
        "{ orders(orderBy: [{field: PLACED_AT, direction: DESC}]) { nodes { orderId } } }",
        {},
    ),
    "what came since": (
        """query ($t: DateTime!) { orders(where: {placedAt: {gte: $t}},
            orderBy: [{field: PLACED_AT}]) { nodes { orderId } } }""",
        {"t": "2026-01-20T00:00:00Z"},
    ),
    "the newest payments": (
        "{ payments(orderBy: [{field: OCCURRED_AT, direction: DESC}]) { nodes { paymentId } } }",
        {},
    ),
    "a customer's orders": (
        """query ($c: String!) { orders(where: {customerId: {eq: $c}}) { totalCount
            nodes { orderId } } }""",
        {"c": "c17"},
    ),
    "orders of totals": (
        "{ customerTotals(first: 10) { nodes { orders(first: 5) { nodes { orderId } } } } }",
        {},
    ),
}
OF_A_CUSTOMER: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "own payments": ("{ payments { totalCount nodes { paymentId order { orderId } } } }", {}),
    "an own payment": ('{ payment(orderId: "o17", paymentId: "p17") { status } }', {}),
}
GO_ON = """query ($after: String) { orders(first: 5, after: $after,
    orderBy: [{field: PLACED_AT, direction: DESC}]) {
    nodes { orderId } pageInfo { endCursor hasPreviousPage hasNextPage } } }"""
BY_IDS = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"


@pytest.fixture(scope="module")
def large(shared_database: Database) -> Database:
    """Tables that nobody wants to read whole."""
    with psycopg.connect(shared_database.dsn, autocommit=True) as connection:
        for statement in FILL:
            connection.execute(statement.encode())
        connection.execute("VACUUM ANALYZE")
    return shared_database


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def _explained(
    database: Database,
    both: Both,
    *,
    query: str,
    variables: Mapping[str, Any],
    generic: bool,
    customer: str | None = None,
) -> list[dict[str, Any]]:
    """The plan for everybody's rows; or what was done for those of one customer."""
    text, values = both.statement(query, variables)
    given = sql.SQL(", ").join(map(sql.Literal, values))
    explain = sql.SQL("EXPLAIN (ANALYZE {}, FORMAT JSON) EXECUTE asked").format(
        sql.SQL("off" if customer is None else "on")
    ) + (sql.SQL("({})").format(given) if values else sql.SQL(""))
    with psycopg.connect(database.api_dsn) as connection:
        mode = "force_generic_plan" if generic else "force_custom_plan"
        connection.execute(f"SET plan_cache_mode = {mode}".encode())
        if customer is not None:
            connection.execute(f"SET ROLE {CUSTOMER}".encode())
            connection.execute("SELECT set_config(%s, %s, false)", (CLAIM, customer))
        connection.execute(f"PREPARE asked AS {text}".encode())
        ((plans,),) = connection.execute(explain).fetchall()
    return [*_nodes(plans[0]["Plan"])]


def _require_indexes(nodes: list[dict[str, Any]]) -> None:
    read_whole = [
        node["Relation Name"]
        for node in nodes
        if node["Node Type"] in ("Seq Scan", "Bitmap Heap Scan")
        and node["Relation Name"] in ("orders", "payments")
        and node["Plan Rows"] > MOST_SORTED
    ]
    assert read_whole == []
    sorted_ = [node["Plan Rows"] for node in nodes if node["Node Type"] == "Sort"]
    assert max(sorted_, default=0) <= MOST_SORTED, "a page is not found in its order"
    assert any("Index" in node["Node Type"] for node in nodes)


@pytest.mark.parametrize("generic", [False, True], ids=["for these values", "for any values"])
@pytest.mark.parametrize("asked", OPERATIONS)
def test_large_tables_are_read_by_index(large: Database, asked: str, generic: bool) -> None:
    query, variables = OPERATIONS[asked]
    with both_ways(large.api_dsn) as both:
        nodes = _explained(large, both, query=query, variables=variables, generic=generic)
    _require_indexes(nodes)


def test_a_rare_status_is_not_looked_for_by_a_plan_for_any_status(large: Database) -> None:
    query, _ = OPERATIONS["a page of one status with payments"]
    with both_ways(large.api_dsn) as both:
        statements = {each: both.statement(query, {"s": each}) for each in ("PLACED", "CANCELLED")}
    assert len({text for text, _ in statements.values()}) == 2
    for status, (text, values) in statements.items():
        assert f"= '{status}'::text" in text
        assert not values


@pytest.mark.parametrize("generic", [False, True], ids=["for these values", "for any values"])
def test_a_page_begins_at_its_cursor_and_ids_are_looked_up(large: Database, generic: bool) -> None:
    with both_ways(large.api_dsn) as both:
        cursor = both.ask(GO_ON).data["orders"]["pageInfo"]["endCursor"]
        found = both.ask(
            "{ orders(first: 3) { nodes { id } } payments(first: 3) { nodes { id } } }"
        )
        ids = [node["id"] for each in found.data.values() for node in each["nodes"]]
        for query, variables in ((GO_ON, {"after": cursor}), (BY_IDS, {"ids": ids})):
            nodes = _explained(large, both, query=query, variables=variables, generic=generic)
            _require_indexes(nodes)
    assert any("ROW(" in node.get("Index Cond", "") for node in nodes) or query == BY_IDS


@pytest.mark.parametrize("generic", [False, True], ids=["for these values", "for any values"])
def test_the_rows_of_a_customer_are_found_without_looking_at_the_others(
    large: Database, generic: bool
) -> None:
    with both_ways(large.api_dsn) as both:
        for asked, (query, variables) in {**OPERATIONS, **OF_A_CUSTOMER}.items():
            nodes = _explained(
                large, both, query=query, variables=variables, generic=generic, customer="c17"
            )
            scans = [node for node in nodes if node.get("Relation Name") in ("orders", "payments")]
            assert scans, asked
            assert sum(map(_read, scans)) <= MOST_READ, asked


def _read(scan: dict[str, Any]) -> float:
    """Rows that were looked at."""
    rows = scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)
    return float(scan["Actual Loops"] * rows)
