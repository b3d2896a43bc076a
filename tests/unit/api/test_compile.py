"""What a statement is made of: shapes and never values, one for each role, and remembered."""

import json
from typing import Any

import pytest
from graphql import GraphQLSchema

from api import route
from api.app import graphql_schema
from api.callers import Caller
from api.documents import Documents
from api.limits import Limits
from api.page import PageSizes
from api.route import Compiled, Routes, Way
from api.schema import TYPES

SIZES = PageSizes(default=20, most=100)
HOSTILE = "'; DROP TABLE orders; -- $1 %s {} \\ \" ${x}"
PAGE = """query ($first: Int, $where: OrderWhere, $after: String, $more: Boolean = true) {
  orders(first: $first, where: $where, after: $after) {
    nodes { orderId amount @include(if: $more) } pageInfo { endCursor } } }"""
ONE = "query ($id: String!) { order(orderId: $id) { orderId } }"


@pytest.fixture
def schema() -> GraphQLSchema:
    """The schema of all views."""
    return graphql_schema()


class Asking:
    """Documents and routes of one process."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._documents = Documents(schema, introspection=True, limits=Limits(), sizes=SIZES)
        self._routes = Routes(schema, TYPES, sizes=SIZES, count_cap=10)

    def way(self, query: str, caller: Caller | None = None, /, **variables: Any) -> Compiled | Way:
        """How that is answered."""
        operation = self._documents.operation(query, None, only_query=True, variables=variables)
        return self._routes.route(operation, variables, caller)

    def statement(
        self, query: str, caller: Caller | None = None, /, build: str = "build_1", **variables: Any
    ) -> tuple[str, list[Any]]:
        """The statement, and its values."""
        way = self.way(query, caller, **variables)
        assert isinstance(way, Compiled)
        return way.statement(build)


@pytest.fixture
def asking(schema: GraphQLSchema) -> Asking:
    """A process that has not been asked yet."""
    return Asking(schema)


def test_values_travel_beside_the_text_and_never_in_it(asking: Asking) -> None:
    literal = json.dumps(HOSTILE)
    for text, values in (
        asking.statement(ONE, id=HOSTILE),
        asking.statement(f"{{ order(orderId: {literal}) {{ orderId }} }}"),
        asking.statement(PAGE, where={"customerId": {"in": [HOSTILE]}, "orderId": {"ne": HOSTILE}}),
        asking.statement(f"{{ orders(where: {{orderId: {{lt: {literal}}}}}) {{ totalCount }} }}"),
    ):
        assert "DROP" not in text
        assert HOSTILE in str(values) or HOSTILE in [*values] or [HOSTILE] in values


def test_requests_that_differ_in_values_share_one_text(asking: Asking) -> None:
    first, one = asking.statement(PAGE, where={"customerId": {"eq": "ann"}})
    second, other = asking.statement(PAGE, where={"customerId": {"eq": "bob"}})
    assert first is second
    assert (one, other) == (["ann"], ["bob"])


def test_whatever_shapes_the_text_makes_another(asking: Asking) -> None:
    texts = [
        asking.statement(PAGE)[0],
        asking.statement(PAGE, first=3)[0],
        asking.statement(PAGE, more=False)[0],
        asking.statement(PAGE, where={"status": {"eq": "PLACED"}})[0],
        asking.statement(PAGE, where={"status": {"eq": "CANCELLED"}})[0],
        asking.statement(PAGE, where={"status": {"ne": "PLACED"}})[0],
        asking.statement(PAGE, where={"not": {"status": {"eq": "PLACED"}}})[0],
        asking.statement(PAGE, build="build_2")[0],
        asking.statement(PAGE, Caller(role="customer", customer_id="ann"))[0],
    ]
    assert len(set(texts)) == len(texts)
    of_bob = asking.statement(PAGE, Caller(role="customer", customer_id="bob"))[0]
    assert of_bob is texts[-1], "who of a role asks is no part of the text"


def test_a_value_that_nothing_shown_depends_on_is_not_sent(asking: Asking) -> None:
    text, values = asking.statement(
        "query ($w: OrderWhere) { orders(first: 3, where: $w) { __typename } }",
        w={"status": {"eq": "PLACED"}},
    )
    assert "$1" not in text
    assert values == []


@pytest.mark.parametrize(
    ("query", "variables", "way"),
    [
        ("{ __schema { queryType { name } } position { token } }", {}, Way.INTROSPECTION),
        ("{ orders(first: -1) { totalCount } }", {}, Way.ARGUMENTS),
        ('{ node(id: "x") { id } }', {}, Way.ARGUMENTS),
        (ONE, {"id": "a\x00b"}, Way.ARGUMENTS),
        (ONE, {}, Way.ARGUMENTS),
        (PAGE, {"more": None}, Way.ARGUMENTS),
        (PAGE, {"after": "x"}, Way.ARGUMENTS),
    ],
)
def test_what_is_not_compiled_has_a_reason(
    asking: Asking, query: str, variables: dict[str, Any], way: Way
) -> None:
    assert asking.way(query, **variables) is way


def test_statements_are_forgotten_before_they_take_too_much(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asking.statement(PAGE, first=1)[0]
    assert asking.statement(PAGE, first=1)[0] is first
    monkeypatch.setattr(route, "_REMEMBERED_CHARS", 10 * len(first))
    for size in range(2, 20):
        asking.statement(PAGE, first=size)
    again = asking.statement(PAGE, first=1)[0]
    assert again == first
    assert again is not first
