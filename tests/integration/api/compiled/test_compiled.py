"""What is compiled is what the resolvers say, to the byte, for operations nobody thought of."""

from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest

from api.route import Way
from tests.fixtures.databases import Database
from tests.fixtures.reports import table_rows, write_page
from tests.integration.api.compiled.both import Both, both_ways
from tests.integration.api.compiled.hostile import node_ids, open_shop, pools
from tests.integration.api.compiled.mutants import MUTANTS
from tests.integration.api.compiled.operations import Pools
from tests.integration.api.compiled.proof import DifferenceError, prove
from tests.integration.api.shop import Shop, order, payment, stock

# The resolvers' executor leaves coroutines behind where a field beside them fails at once. Who
# clears them away says so; where that happens to be the `__new__` of a named tuple, which has no
# `__import__`, it fails.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <coroutine object .*_async_resolver"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
]

OPERATIONS = 5_000
MANY = 100_000
SEEDS = range(1, 11)
UNTIL_CAUGHT = 1_500


@pytest.fixture(scope="module")
def asked(shared_database: Database) -> tuple[Database, Pools]:
    """A shop in which everything happens that may, and what to ask it for."""
    shop = open_shop(shared_database.dsn)
    return shared_database, pools(shop, node_ids(shared_database.dsn))


@pytest.fixture
def both(asked: tuple[Database, Pools]) -> Iterator[Both]:
    """Both ways to an answer."""
    with both_ways(asked[0].api_dsn) as both:
        yield both


def test_operations_at_random_are_answered_alike_by_one_statement(
    both: Both, asked: tuple[Database, Pools]
) -> None:
    report = prove(both, asked[1], seed=2026, count=OPERATIONS)
    assert report.ways[Way.COMPILED] > OPERATIONS * 0.6, report
    assert report.ways[Way.ARGUMENTS] > OPERATIONS * 0.02, report
    assert report.followed > OPERATIONS * 0.05, report


@pytest.mark.proof
def test_many_more_operations_are_answered_alike(both: Both, asked: tuple[Database, Pools]) -> None:
    reports = [prove(both, asked[1], seed=seed, count=MANY // len(SEEDS)) for seed in SEEDS]
    ways = sum((report.ways for report in reports), Counter[str]())
    write_page(
        "compiler",
        _PAGE,
        dsn=asked[0].dsn,
        operations=sum(report.operations for report in reports),
        followed=sum(report.followed for report in reports),
        ways=table_rows((str(way), count) for way, count in ways.most_common()),
        mutants=len(MUTANTS),
    )


_PAGE = """# The compiler and its oracle

`make proof ARGS="-k many_more_operations"`, {day}, {cpus} cores: **{operations:,} operations at
random, 0 differences**. Each was answered by one compiled statement and by the resolvers, as an
operator, as one of several customers or without tokens; `data` and errors are the same to the byte.
{followed:,} of them go on from a cursor that an answer had. The first difference would have ended
the run.

| answered | operations |
|---|---|
{ways}

All but the first, and what was refused before a way was chosen, go to the resolvers both times:
there it is only shown that they are told apart. {mutants} compilers that are wrong in one place are
each caught in every run of `tests/integration/api/compiled/test_compiled.py`.
"""


@pytest.mark.parametrize("wrong", MUTANTS)
def test_a_compiler_that_is_wrong_in_one_place_is_caught(
    asked: tuple[Database, Pools], wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, name, mutant = MUTANTS[wrong]
    monkeypatch.setattr(place, name, mutant(getattr(place, name)))
    with both_ways(asked[0].api_dsn) as both, pytest.raises(DifferenceError) as caught:
        prove(both, asked[1], seed=7, count=UNTIL_CAUGHT)
    print(caught.value)


BROKEN = {
    "a null where none may be": "status = NULL",
    "a symbol that nobody knows": "status = 'LOST'",
    "a null within a list": """items = '[{"sku": "a", "quantity": 1, "unit_price": "1"},
        {"sku": null, "quantity": 1, "unit_price": "1"}]'""",
    "a list that is none": "items = 'null'",
}
SHOP = Shop([order("a"), order("b")], [payment("a", "p"), payment("a", "q")])
FIELDS = "orderId status items { sku quantity unitPrice }"
MET = (
    f'{{ one: order(orderId: "a") {{ {FIELDS} }} other: order(orderId: "b") {{ orderId }} }}',
    f"{{ orders(first: 40) {{ nodes {{ {FIELDS} }} }} }}",
    f"{{ payments(first: 40) {{ edges {{ node {{ order {{ {FIELDS} }} }} }} }} }}",
)


@pytest.mark.parametrize("wrong", BROKEN)
def test_a_row_that_breaks_its_type_is_an_error_at_its_place(
    database: Database, wrong: str
) -> None:
    stock(database.dsn, SHOP)
    with psycopg.connect(database.dsn) as connection:
        statement = f"UPDATE build_1.orders SET {BROKEN[wrong]} WHERE order_id = 'a'"
        connection.execute(statement.encode())
    with both_ways(database.api_dsn) as both:
        for query in MET:
            pair = both.ask(query)
            assert pair.same, (pair.compiled, pair.plain)
            assert pair.way is Way.BROKEN
            assert b"INTERNAL_SERVER_ERROR" in pair.plain
        assert both.ask(f'{{ order(orderId: "b") {{ {FIELDS} }} }}').way is Way.COMPILED


def test_a_cursor_from_a_position_that_is_not_reached_is_refused_alike(database: Database) -> None:
    stock(database.dsn, SHOP)
    _move(
        database.dsn,
        "INSERT INTO build_1.positions (topic, partition, next_offset)"
        " VALUES ('orders', 0, 9), ('payments', 0, 9)",
    )
    root = "query ($at: String) { orders(first: 1, after: $at) { pageInfo { endCursor } } }"
    nested = """query ($at: String, $id: String!) { order(orderId: $id) {
      payments(first: 1, after: $at) { pageInfo { endCursor } nodes { id } } } }"""
    with both_ways(database.api_dsn) as both:
        of_root = both.ask(root).data["orders"]["pageInfo"]["endCursor"]
        found = both.ask(nested, {"id": "a"}).data
        of_order = found["order"]["payments"]["pageInfo"]["endCursor"]
        assert both.ask(root, {"at": of_root}).way is Way.COMPILED
        _move(database.dsn, "UPDATE build_1.positions SET next_offset = 8 WHERE topic = 'orders'")
        for query, variables in (
            (root, {"at": of_root}),
            (nested, {"at": of_order, "id": "a"}),
        ):
            ahead = both.ask(query, variables)
            assert ahead.same
            assert b"STALE" in ahead.plain
        nobody = both.ask(nested, {"at": of_order, "id": "nobody"})
        assert nobody.same
        assert nobody.way is Way.CURSOR, "no row is there whose page could go on"
        assert nobody.data == {"order": None}


def _move(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(statement.encode())
