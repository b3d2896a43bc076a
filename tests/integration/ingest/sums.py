"""The invariants that any reader may check: sums over orders, payments and aggregates agree.

In SQL and over GraphQL, with arithmetic of our own on what the answers say.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.integration.api.conftest import Api
from tests.integration.ingest.running import query

Sums = dict[str, dict[str, Decimal]]
"""Per currency, each measure summed over all rows of a view."""
MEASURES = ("orderCount", "cancelledCount", "ordered", "paid", "refunded", "outstanding")

_OF_PEOPLE = """
    SELECT currency, sum(order_count), sum(cancelled_count), sum(ordered), sum(paid),
           sum(refunded), sum(outstanding) FROM views.{view} GROUP BY currency ORDER BY currency
"""
_OF_ORDERS = """
    SELECT currency, count(*), count(*) FILTER (WHERE status = 'CANCELLED'),
           coalesce(sum(amount - coalesce(discount, 0)) FILTER (WHERE status <> 'CANCELLED'), 0),
           sum(paid), sum(refunded), sum(outstanding)
    FROM views.orders GROUP BY currency ORDER BY currency
"""


def sums_agree_for_people(dsn: str) -> None:
    """In SQL, by the views for people: both aggregates add up to the orders."""
    of_orders = query(dsn, _OF_ORDERS)
    assert len(of_orders) >= 3, "fewer than three currencies"
    for view in ("customer_totals", "daily_sales"):
        assert query(dsn, _OF_PEOPLE.format(view=view)) == of_orders, view


# The same over GraphQL, with arithmetic of our own on what the answers say.


def sums_agree_over_graphql(api: Api) -> None:
    """The same, and each order of its payments, by what the API answers, at one position."""
    answers = Answers(api)
    wanted: Sums = defaultdict(lambda: defaultdict(Decimal))
    for order in answers.all("orders", _ORDER):
        _settled(order)
        for measure, value in _measured(order).items():
            wanted[order["currency"]][measure] += value
    assert len(wanted) >= 3, "fewer than three currencies"
    for view in ("customerTotals", "dailySales"):
        held: Sums = defaultdict(lambda: defaultdict(Decimal))
        for group in answers.all(view, f"currency {' '.join(MEASURES)}"):
            assert group["orderCount"] > 0, "a group of no orders"
            for measure in MEASURES:
                held[group["currency"]][measure] += Decimal(group[measure])
        assert held == wanted, view
    assert len(answers.positions) == 1, "the answers are of different positions"


_ORDER = """
    orderId currency status amount discount paid refunded outstanding paymentCount
    mismatchedPaymentCount
    payments(first: 20) { nodes { status currency amount refundedAmount } }
"""


@dataclass
class Answers:
    """Pages of a list, and the positions that they said to be of."""

    api: Api
    positions: set[str] = field(default_factory=set)

    def all(self, name: str, fields: str) -> Iterator[Mapping[str, Any]]:
        """Every row, page by page."""
        text = (
            f"query($after: String) {{ {name}(first: 100, after: $after)"
            f" {{ nodes {{ {fields} }} pageInfo {{ hasNextPage endCursor }} }} }}"
        )
        after, more = None, True
        while more:
            body = self.api.answer(text, after=after)
            assert "errors" not in body, body["errors"]
            self.positions.add(body["extensions"]["consistency"]["position"])
            page = body["data"][name]
            yield from page["nodes"]
            after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]


def _measured(order: Mapping[str, Any]) -> dict[str, Decimal]:
    """What one order adds to its groups."""
    gone = order["status"] == "CANCELLED"
    net = Decimal(order["amount"]) - Decimal(order["discount"] or 0)
    return {
        "orderCount": Decimal(1),
        "cancelledCount": Decimal(gone),
        "ordered": Decimal(0) if gone else net,
        **{name: Decimal(order[name]) for name in ("paid", "refunded", "outstanding")},
    }


def _settled(order: Mapping[str, Any]) -> None:
    """An order says of its payments what they say themselves."""
    payments = order["payments"]["nodes"]
    own = [payment for payment in payments if payment["currency"] == order["currency"]]
    counted = [payment for payment in own if payment["status"] in ("CAPTURED", "REFUNDED")]
    paid = sum((Decimal(payment["amount"]) for payment in counted), Decimal(0))
    refunded = sum((Decimal(payment["refundedAmount"]) for payment in counted), Decimal(0))
    due = _measured(order)["ordered"]
    assert (
        Decimal(order["paid"]),
        Decimal(order["refunded"]),
        Decimal(order["outstanding"]),
        order["paymentCount"],
        order["mismatchedPaymentCount"],
    ) == (paid, refunded, due - paid + refunded, len(payments), len(payments) - len(own)), order
