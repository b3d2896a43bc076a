"""Limits: what is asked for is measured before anything runs, and bombs cost next to nothing."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from graphql import get_introspection_query

from api.app import graphql_schema
from api.documents import Documents, RefusedError
from api.errors import TooComplexError
from api.limits import Limits
from api.page import PageSizes

SIZES = PageSizes(20, 100)
PLENTY = 10**9


def documents(**given: int) -> Documents:
    """Documents under limits; introspection is open."""
    return Documents(graphql_schema(), introspection=True, limits=Limits(**given), sizes=SIZES)


def cost(query: str, **variables: Any) -> int:
    """What the limits make of an operation."""
    lenient = Limits(cost=PLENTY)
    operation = documents(cost=PLENTY).operation(query, None, only_query=True, variables=variables)
    return operation.costing.require(variables, lenient)


def refused(query: str, variables: dict[str, Any] | None = None, **limits: int) -> dict[str, Any]:
    """The extensions of the refusal."""
    with pytest.raises(TooComplexError) as caught:
        documents(**limits).operation(query, None, only_query=True, variables=variables)
    return dict(caught.value.extensions or {})


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ('{ order(orderId: "a") { orderId } }', 2),
        ("{ orders { nodes { orderId } } }", 1 + 20 * 2),
        ("{ orders(first: 3) { nodes { orderId amount } } }", 1 + 3 * 3),
        ("{ orders(last: 3) { edges { node { orderId } cursor } } }", 1 + 3 * 4),
        ("{ orders(first: 3) { pageInfo { endCursor } nodes { orderId } } }", 1 + 2 + 3 * 2),
        ("{ orders { totalCount } }", 11),
        (
            "{ orders(first: 10) { nodes { payments(first: 5) { nodes { paymentId } } } } }",
            1 + 10 * (1 + 1 + 5 * 2),
        ),
        ('{ nodes(ids: ["a", "b"]) { id } }', 1 + 2 * 2),
        ("{ orders(first: 1000000000) { nodes { id } } }", 1 + 100 * 2),
    ],
)
def test_a_page_costs_its_rows_times_their_fields(query: str, fields: int) -> None:
    assert cost(query) == fields


def test_fragments_cost_what_they_stand_for() -> None:
    plain = "{ orders(first: 7) { nodes { id payments { nodes { id } } } pageInfo { endCursor } } }"
    spread = """{ ...Root } fragment Root on Query { orders(first: 7) { ...Page } }
      fragment Page on OrderConnection { ... { nodes { ...Row } } pageInfo { endCursor } }
      fragment Row on Node { id ... on Order { payments { nodes { id } } } }"""
    assert cost(spread) == cost(plain)


def test_variables_decide_the_cost_of_a_page() -> None:
    query = "query ($n: Int = 4, $m: Int) { orders(first: $n, last: $m) { nodes { id } } }"
    assert cost(query) == 1 + 4 * 2
    assert cost(query, n=50) == 1 + 50 * 2
    assert cost(query, n=None) == cost(query, n="x") == 1 + 20 * 2
    ids = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
    assert cost(ids, ids=["a"] * 9) == 1 + 9 * 2


def test_a_refusal_tells_the_cost_and_every_limit() -> None:
    told = refused(NESTED)
    assert told["code"] == "QUERY_TOO_COMPLEX"
    assert told["cost"] > 50_000
    assert told["limits"]["cost"] == 50_000
    assert set(told["limits"]) >= {"depth", "aliases", "rootFields", "directives", "tokens"}


NESTED = """{ orders(first: 100) { nodes { payments(first: 100) { nodes { id
  order { payments(first: 100) { nodes { id } } } } } } } }"""
ALIASES = "{" + " ".join(f"a{n}: position {{ build }}" for n in range(31)) + "}"


def _deep(levels: int) -> str:
    return (
        "{ orders { nodes "
        + "{ payments { nodes { order " * levels
        + "{ id }"
        + "}}}" * levels
        + "}}"
    )


def _deep_by_fragments() -> str:
    chain = " ".join(
        f"fragment F{n} on Order {{ payments {{ nodes {{ order {{ ...F{n + 1} }} }} }} }}"
        for n in range(9)
    )
    return "{ orders { nodes { ...F0 } } } " + chain + " fragment F9 on Order { id }"


def _fan(levels: int) -> str:
    fans = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(levels))
    return "{ ...F0 } " + fans + f" fragment F{levels} on Query {{ x: position {{ build }} }}"


BOMBS: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
    "depth": lambda: (_deep(4), {}),
    "depth by fragments": lambda: (_deep_by_fragments(), {}),
    "braces without end": lambda: ("{a" * 990 + "}" * 990, {}),
    "lists without end": lambda: ("{ nodes(ids: " + "[" * 900 + "]" * 900 + ") { id } }", {}),
    "values without end": lambda: (
        "{ orders(where: " + "{not: " * 400 + "{}" + "}" * 400 + ") { nodes { id } } }",
        {},
    ),
    "aliases": lambda: (ALIASES, {}),
    "one field again and again": lambda: ("{ position {" + " build" * 1900 + "} }", {}),
    "one root field with arguments": lambda: (
        "{" + ' order(orderId: "a") { id }' * 130 + "}",
        {},
    ),
    "a fan of fragments": lambda: (_fan(40), {}),
    "a long chain of fragments": lambda: (
        "{ ...F0 } " + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} }}" for n in range(180)),
        {},
    ),
    "many fragments": lambda: (
        "{ ...F0 } " + " ".join(f"fragment F{n} on Query {{ ...F{n} }}" for n in range(150)),
        {},
    ),
    "directives": lambda: ("{ position { build " + "@skip(if: false) " * 60 + "} }", {}),
    "tokens": lambda: ("{" + "a " * 3000 + "}", {}),
    "a megabyte": lambda: ("{ " + "a" * 1_000_000 + " }", {}),
    "a megabyte of comment": lambda: ("#" + "x" * 1_000_000, {}),
    "pages in pages": lambda: (NESTED, {}),
    "many ids": lambda: (
        "query ($ids: [ID!]!) { nodes(ids: $ids) { id ... on Order { orderId amount } } }",
        {"ids": ["x"] * 20_000},
    ),
    "deep variables": lambda: (
        "query ($w: OrderWhere) { orders(where: $w) { nodes { id } } }",
        {"w": _nested(900)},
    ),
}


def _nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"not": value}
    return value


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_for_next_to_nothing(bomb: str) -> None:
    query, variables = BOMBS[bomb]()
    subject = documents()
    subject.operation("{ position { build } }", None, only_query=True)
    best_s = 1.0
    for _ in range(3):
        began_s = time.process_time()
        with pytest.raises((TooComplexError, RefusedError)) as caught:
            subject.operation(query, None, only_query=True, variables=variables)
        best_s = min(best_s, time.process_time() - began_s)
    told = caught.value
    if isinstance(told, RefusedError):
        # The parser itself counts tokens and nesting.
        assert told.errors[0]["extensions"]["code"] == "GRAPHQL_PARSE_FAILED"
    assert best_s < 0.05


@pytest.mark.parametrize(
    "query",
    [
        "{ ...A } fragment A on Query { ...A }",
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A position { build } }",
        "{ ...Missing }",
    ],
)
def test_what_is_not_valid_is_left_to_validation(query: str) -> None:
    with pytest.raises(RefusedError) as caught:
        documents().operation(query, None, only_query=True)
    assert caught.value.errors[0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"


_SPREADS = " ".join(f"...F{n}" for n in range(48))
_FRAGMENTS = " ".join(f"fragment F{n} on Order {{ orderId version }}" for n in range(48))


@pytest.mark.parametrize(
    "query",
    [
        "{ orders { nodes {" + "... on Order { orderId status version } " * 33 + "} } }",
        "{ orders { nodes {" + _SPREADS + "} } } " + _FRAGMENTS,
        "{ orders { nodes {" + _SPREADS + "} } } " + _FRAGMENTS.replace("version", "...F47", 47),
    ],
)
def test_what_slips_under_every_limit_is_judged_quickly_too(query: str) -> None:
    best_s = 1.0
    for _ in range(3):
        subject = documents()
        began_s = time.process_time()
        subject.operation(query, None, only_query=True)
        best_s = min(best_s, time.process_time() - began_s)
    assert best_s < 0.1


def test_introspection_is_not_too_deep() -> None:
    documents(tokens=5000).operation(get_introspection_query(), None, only_query=True)
