"""`where`: every combination means what plain Python means by it, and nonsense is refused."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.filters import MAX_COMPARISONS
from api.scalars import date_time_text
from tests.fixtures.databases import Database
from tests.integration.api.conftest import Api
from tests.integration.api.shop import MONDAY, STATUSES, busy_shop, stock

LIST = """query ($where: OrderWhere) {
  orders(first: 100, where: $where) { nodes { orderId } totalCount } }"""
SHOP = busy_shop(orders=80)

IDS = st.sampled_from(["o010", "o033", "o034", "o077", "", "ž", "O033", "o0%"])
CUSTOMERS = st.sampled_from(["ann", "bob", "čeněk", "d e", "nobody", "d"])
MOMENTS = st.integers(-1, 9).map(lambda hours: MONDAY + timedelta(hours=hours))
STATES = st.sampled_from(STATUSES)

TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, given: value == given,
    "ne": lambda value, given: value != given,
    "lt": lambda value, given: value < given,
    "lte": lambda value, given: value <= given,
    "gt": lambda value, given: value > given,
    "gte": lambda value, given: value >= given,
    "in": lambda value, given: value in given,
    "notIn": lambda value, given: value not in given,
    "isNull": lambda value, given: (value is None) == given,
}
COLUMNS = {
    "orderId": "order_id",
    "customerId": "customer_id",
    "status": "status",
    "placedAt": "placed_at",
}


def _operators(values: st.SearchStrategy[Any], *, ordered: bool) -> st.SearchStrategy[Any]:
    single = ("eq", "ne", *(("lt", "lte", "gt", "gte") if ordered else ()))
    every: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(single, values)
    every |= {name: st.lists(values, max_size=3) for name in ("in", "notIn")}
    every["isNull"] = st.booleans()
    return st.fixed_dictionaries({}, optional=every)


LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "orderId": _operators(IDS, ordered=True),
        "customerId": _operators(CUSTOMERS, ordered=True),
        "status": _operators(STATES, ordered=False),
        "placedAt": _operators(MOMENTS, ordered=True),
    },
)
WHERES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        LEAVES,
        st.fixed_dictionaries(
            {},
            optional={
                "and": st.lists(inner, max_size=2),
                "or": st.lists(inner, max_size=3),
                "not": inner,
                "status": _operators(STATES, ordered=False),
            },
        ),
    ),
    max_leaves=6,
).filter(lambda where: _comparisons(where) <= MAX_COMPARISONS)


def _comparisons(where: dict[str, Any]) -> int:
    """How many there are in a `where`: more than a hundred are refused."""
    count = 0
    for name, inner in where.items():
        if name in ("and", "or"):
            count += sum(_comparisons(each) for each in inner)
        else:
            count += _comparisons(inner) if name == "not" else len(inner)
    return count


def holds(where: dict[str, Any], row: dict[str, Any]) -> bool:
    """What a `where` means, said in Python."""
    return all(_parts(where, row))


def _parts(where: dict[str, Any], row: dict[str, Any]) -> Iterator[bool]:
    for name, inner in where.items():
        if name == "and":
            yield all(holds(each, row) for each in inner)
        elif name == "or":
            yield any(holds(each, row) for each in inner)
        elif name == "not":
            yield not holds(inner, row)
        else:
            value = row[COLUMNS[name]]
            yield all(TESTS[operator](value, given) for operator, given in inner.items())


def sent(where: Any) -> Any:
    """The same with moments as texts."""
    if isinstance(where, dict):
        return {name: sent(each) for name, each in where.items()}
    if isinstance(where, list):
        return [sent(each) for each in where]
    return date_time_text(where) if hasattr(where, "tzinfo") else where


@pytest.fixture(scope="module")
def stocked(shared_api: Api, shared_database: Database) -> Api:
    """The API in front of the shop."""
    stock(shared_database.dsn, SHOP)
    return shared_api


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(where=WHERES)
def test_a_filter_selects_what_the_same_words_select_in_python(
    stocked: Api, where: dict[str, Any]
) -> None:
    wanted = sorted(row["order_id"] for row in SHOP.visible if holds(where, row))
    page = stocked.data(LIST, where=sent(where))["orders"]
    assert [node["orderId"] for node in page["nodes"]] == wanted
    assert page["totalCount"] == len(wanted)


def test_every_view_is_filtered_by_its_keys(stocked: Api) -> None:
    shown = stocked.data(
        """{ payments(where: {status: {eq: CAPTURED}, occurredAt: {gte: "2026-03-03T00:00:00Z"}})
            { totalCount }
          customerTotals(where: {currency: {eq: "USD"}, customerId: {gt: "ann"}})
            { nodes { customerId currency } }
          dailySales(where: {day: {in: ["2026-03-03"]}, not: {currency: {eq: "USD"}}})
            { nodes { day currency } } }"""
    )
    captured = [
        row
        for row in SHOP.payments
        if row["status"] == "CAPTURED" and row["occurred_at"] >= MONDAY + timedelta(hours=1)
    ]
    assert shown["payments"]["totalCount"] == len(captured)
    assert [each["customerId"] for each in shown["customerTotals"]["nodes"]] == [
        "bob",
        "d e",
        "čeněk",
    ]
    assert shown["dailySales"]["nodes"] == [{"day": "2026-03-03", "currency": "EUR"}]


def _nested(depth: int) -> dict[str, Any]:
    return {"not": _nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    "where",
    [
        {"orderId": None},
        {"orderId": {"eq": None}},
        {"orderId": {"in": [str(n) for n in range(501)]}},
        {"and": [{"orderId": {"eq": "a"}} for _ in range(101)]},
        _nested(11),
        {"placedAt": {"gt": "yesterday"}},
        {"placedAt": {"gt": "2026-02-30T00:00:00Z"}},
        {"placedAt": {"gt": "2026-02-03T00:00:00"}},
        {"placedAt": {"gt": "0001-01-01T00:00:00+14:00"}},
        {"placedAt": {"gt": 5}},
        {"status": {"eq": "LOST"}},
        {"amount": {"gt": "5"}},
        {"status": {"lt": "PLACED"}},
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(stocked: Api, where: dict[str, Any]) -> None:
    assert stocked.code(LIST, where=where) == "BAD_USER_INPUT"
