"""Documents as people and tools write them: each is answered alike by both ways, and compiled."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from api.route import Way
from tests.fixtures.databases import Database
from tests.integration.api.compiled.both import Both, both_ways
from tests.integration.api.compiled.hostile import open_shop

SEVERAL = """query A { orders(first: 1) { nodes { orderId } } }
  query B($n: Int = 2) { orders(last: $n) { ...Page } }
  fragment Page on OrderConnection { nodes { ...Row } edges { node { ...Row status } cursor } }
  fragment Row on Order { orderId ...Parts items { sku } }
  fragment Parts on Node { id __typename ... on Order { items { quantity } } }"""

DOCUMENTS: Mapping[str, tuple[str, Mapping[str, Any], str | None]] = {
    "one of several operations": (SEVERAL, {}, "A"),
    "another of them, with a default": (SEVERAL, {}, "B"),
    "the default overruled": (SEVERAL, {"n": 1}, "B"),
    "null for a default": (SEVERAL, {"n": None}, "B"),
    "one value where a list may be": (
        """query ($by: [OrderSort!], $s: [OrderStatus!]) { orders(first: 3, orderBy: $by,
          where: {status: {in: $s}, and: {orderId: {gte: ""}}}) { nodes { orderId } } }""",
        {"by": {"field": "PLACED_AT", "direction": "DESC"}, "s": "PLACED"},
        None,
    ),
    "a variable within an input": (
        """query ($id: String!, $d: SortDirection! = DESC) { orders(where: {or: [
          {orderId: {eq: $id}}, {customerId: {eq: $id}}]},
          orderBy: [{direction: $d, field: CUSTOMER_ID}, {field: STATUS}]) {
            totalCount totalCountIsExact nodes { orderId status } } }""",
        {"id": "ann"},
        None,
    ),
    "a variable that is left out of an input": (
        """query ($s: OrderStatus) { orders(first: 2, where: {status: {eq: PLACED, ne: $s}}) {
          nodes { orderId } } }""",
        {},
        None,
    ),
    "comments, commas, block strings and escapes": (
        '{ # a comment, with "quotes"\n orders(where: {orderId: {in: ["""new\nline""",'
        ' "quo\\"te", "\\u010den\\u011bk"]}},,) { nodes, { orderId } } }',
        {},
        None,
    ),
    "names that are names of something else": (
        """{ nodes: orders(first: 2) { edges: nodes { id: orderId, orderId: id, items: amount,
          payments: source { topic: offset, offset: topic } } pageInfo: totalCount } }""",
        {},
        None,
    ),
    "everything left out": (
        """query ($no: Boolean!) { orders @include(if: $no) { totalCount }
          payments { nodes @include(if: $no) { id } pageInfo @skip(if: true) { endCursor } }
          dailySales(first: 2) { nodes { day @include(if: $no) } } }""",
        {"no": False},
        None,
    ),
    "empty objects": (
        """query ($no: Boolean!) { orders(first: 2) { nodes { items { sku @include(if: $no) }
          source { topic @include(if: $no) } payments { pageInfo { endCursor @include(if: $no) } }
          } } position { partitions { topic @include(if: $no) } } }""",
        {"no": False},
        None,
    ),
    "skip wins over include": (
        "{ orders(first: 1) { totalCount @include(if: true) @skip(if: true) nodes { id } } }",
        {},
        None,
    ),
    "one field through many fragments": (
        """{ orders(first: 2) { ...A ...B ...A } }
          fragment A on OrderConnection { nodes { payments(first: 1) { nodes { paymentId } } } }
          fragment B on OrderConnection { nodes { payments(first: 1) { totalCount
            nodes { amount paymentId } } } ...A }""",
        {},
        None,
    ),
    "both ways round": (
        """{ payments(first: 3) { nodes { order { payments(last: 2) { nodes { order { orderId
          customerTotals { nodes { orders(first: 1) { nodes { id } } } } } } } } } } }""",
        {},
        None,
    ),
    "pages of a day": (
        """{ dailySales(first: 5, orderBy: [{field: CURRENCY, direction: DESC}]) { edges { cursor
          node { day orders(first: 2, orderBy: [{field: STATUS}]) { totalCount
            edges { cursor node { orderId } } pageInfo { hasNextPage } } } } } }""",
        {},
        None,
    ),
    "the position in the midst of others": (
        """{ a: __typename position { token caughtUp partitions { topic offset lagEvents } }
          orders(first: 1) { nodes { id } } again: position { build asOf lagMs __typename } }""",
        {},
        None,
    ),
    "no ids": ("{ nodes(ids: []) { id } }", {}, None),
}


@pytest.fixture(scope="module")
def both(shared_database: Database) -> Iterator[Both]:
    """Both ways to an answer, over a hostile shop."""
    open_shop(shared_database.dsn)
    with both_ways(shared_database.api_dsn) as both:
        yield both


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_is_answered_alike_by_both_ways(both: Both, document: str) -> None:
    query, variables, name = DOCUMENTS[document]
    pair = both.ask(query, variables, name=name)
    assert pair.same, (pair.compiled, pair.plain)
    assert pair.way is Way.COMPILED, pair.plain
    assert both.statements == 1
