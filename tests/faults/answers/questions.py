"""What sessions ask, and what the log says to each question at a position. Pure.

Stands apart because question and due answer are written from the same lists of fields: what is
asked for is compared, whole.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from tests.faults.oracle.following import Following, Key, Listing
from tests.faults.oracle.rows import Row, day, text

PAGE: Final = 5
_INNER: Final = 3
_MONEY: Final = ("amount", "discount", "paid", "refunded", "outstanding")
_SOURCE: Final = "source { topic partition offset schemaId }"
_ORDER: Final = (
    "orderId version eventId status customerId currency amount discount"
    " items { sku quantity unitPrice } paid refunded outstanding paymentCount"
    f" mismatchedPaymentCount placedAt updatedAt {_SOURCE}"
)
_PAYMENT: Final = (
    "orderId paymentId version eventId status currency amount refundedAmount method occurredAt"
    f" {_SOURCE}"
)
_MEASURES: Final = "orderCount cancelledCount ordered paid refunded outstanding"
_TOTAL: Final = f"customerId currency {_MEASURES}"
_DAY: Final = f"day currency {_MEASURES}"
_OF_ORDER: Final = (
    f"order(orderId: $order) {{ {_ORDER} payments(first: 100) {{ nodes {{ {_PAYMENT} }} }}"
    f" customerTotals {{ nodes {{ {_TOTAL} }} }} }}"
)
_OF_TOTAL: Final = (
    f"customerTotal(customerId: $customer, currency: $currency) {{ {_TOTAL}"
    f" orders(first: {_INNER}) {{ totalCount nodes {{ {_ORDER} }} }} }}"
)
_OF_DAY: Final = (
    f"dailySale(day: $day, currency: $currency) {{ {_DAY}"
    f" orders(first: {_INNER}) {{ totalCount nodes {{ orderId amount }} }} }}"
)


def _page(connection: str, fields: str) -> str:
    return (
        f"query ($after: String) {{ {connection}(first: {PAGE}, after: $after)"
        f" {{ nodes {{ {fields} }} pageInfo {{ hasNextPage endCursor }} }} position {{ token }} }}"
    )


QUERIES: Final[Mapping[str, str]] = {
    "order": f"query ($order: String!) {{ {_OF_ORDER} position {{ token }} }}",
    "payment": "query ($order: String!, $payment: String!) { payment(orderId: $order,"
    f" paymentId: $payment) {{ {_PAYMENT} order {{ {_ORDER} }} }} position {{ token }} }}",
    "customer total": "query ($customer: String!, $currency: CurrencyCode!)"
    f" {{ {_OF_TOTAL} position {{ token }} }}",
    "daily sale": "query ($day: Date!, $currency: CurrencyCode!)"
    f" {{ {_OF_DAY} position {{ token }} }}",
    "all of an order": "query ($order: String!, $customer: String!, $day: Date!,"
    f" $currency: CurrencyCode!) {{ {_OF_ORDER} {_OF_TOTAL} {_OF_DAY} position {{ token }} }}",
    "orders": _page("orders", _ORDER),
    "payments": _page("payments", _PAYMENT),
    "customerTotals": _page("customerTotals", _TOTAL),
    "dailySales": _page("dailySales", _DAY),
}
_OFTEN: Final = {"order": 4, "payment": 2, "customer total": 2, "all of an order": 2}
_KEYS: Final = {
    "orders": ("orderId",),
    "payments": ("orderId", "paymentId"),
    "customerTotals": ("customerId", "currency"),
    "dailySales": ("day", "currency"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """A query by its name, its variables, and for a page the key that its cursor stands for."""

    kind: str
    variables: Mapping[str, Any]
    after: Key | None = None


@dataclass(slots=True)
class Browser:
    """Chooses questions by what the answers told: the next page, the payments of an order."""

    recent: Sequence[str]
    chance: random.Random
    _known: dict[str, Any] = field(default_factory=dict)
    _pages: dict[str, tuple[str, Key] | None] = field(default_factory=dict)

    def next(self) -> Question | None:
        """The next question; None while nothing is known to ask for."""
        kinds, weights = [*QUERIES], [_OFTEN.get(kind, 1) for kind in QUERIES]
        (kind,) = self.chance.choices(kinds, weights)
        if kind in _KEYS:
            cursor, after = self._pages.get(kind) or (None, None)
            return Question(kind, {"after": cursor}, after)
        if kind == "order" or any(name not in self._known for name in _named(kind)):
            if not self.recent:
                return None
            order_id = self.recent[self.chance.randrange(len(self.recent))]
            return Question("order", {"order": order_id})
        return Question(kind, {name: self._known[name] for name in _named(kind)})

    def learn(self, question: Question, data: Mapping[str, Any]) -> None:
        """Remember what an answer gives to ask for."""
        if question.kind in _KEYS:
            self._turn_page(question.kind, data[question.kind])
        order = data.get("order")
        if order is None:
            return
        self._known |= {
            "order": order["orderId"],
            "customer": order["customerId"],
            "currency": order["currency"],
            "day": order["placedAt"][:10],
        }
        if order["payments"]["nodes"]:
            self._known["payment"] = order["payments"]["nodes"][-1]["paymentId"]

    def _turn_page(self, kind: str, page: Mapping[str, Any]) -> None:
        last = page["nodes"][-1] if page["pageInfo"]["hasNextPage"] else None
        key = None if last is None else tuple(last[name] for name in _KEYS[kind])
        self._pages[kind] = None if key is None else (page["pageInfo"]["endCursor"], key)


def _named(kind: str) -> list[str]:
    names = ("order", "payment", "customer", "day", "currency")
    return [name for name in names if f"${name}:" in QUERIES[kind]]


def due(question: Question, views: Following) -> dict[str, Any]:
    """The data that the log says, but for the position and the cursor."""
    v = question.variables
    if question.kind in _KEYS:
        return {question.kind: _PAGES[question.kind](views, question.after)}
    if question.kind == "payment":
        return {"payment": _payment_and_order(views, v["order"], v["payment"])}
    parts: dict[str, Callable[[], Any]] = {
        "order": lambda: _order_and_more(views, v["order"]),
        "customerTotal": lambda: _total(views, v["customer"], v["currency"]),
        "dailySale": lambda: _day(views, v["day"], v["currency"]),
    }
    return {name: part() for name, part in parts.items() if f"{name}(" in QUERIES[question.kind]}


def compared(question: Question, data: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an answer's data that `due` tells."""
    kept = {name: value for name, value in data.items() if name != "position"}
    if question.kind in _KEYS:
        info = {"hasNextPage": kept[question.kind]["pageInfo"]["hasNextPage"]}
        kept[question.kind] = kept[question.kind] | {"pageInfo": info}
    return kept


def _order_and_more(views: Following, order_id: str) -> dict[str, Any] | None:
    row = views.orders.get(order_id)
    if row is None:
        return None
    payments = views.payments.under(order_id)
    totals = views.customer_totals.under(row["customer_id"])
    return _order(row) | {
        "payments": {"nodes": [_payment(each) for each in payments]},
        "customerTotals": {"nodes": [_sums(each) for each in totals]},
    }


def _payment_and_order(views: Following, order_id: str, payment_id: str) -> dict[str, Any] | None:
    row, order = views.payments.get(order_id, payment_id), views.orders.get(order_id)
    if row is None:
        return None
    return _payment(row) | {"order": None if order is None else _order(order)}


def _total(views: Following, *key: str) -> dict[str, Any] | None:
    row = views.customer_totals.get(*key)
    return None if row is None else _sums(row) | {"orders": _some(views.orders_of_total[key])}


def _day(views: Following, *key: str) -> dict[str, Any] | None:
    row = views.daily_sales.get(*key)
    if row is None:
        return None
    orders = _some(views.orders_of_day[key])
    nodes = [{name: each[name] for name in ("orderId", "amount")} for each in orders["nodes"]]
    return _sums(row) | {"orders": orders | {"nodes": nodes}}


def _some(listing: Listing) -> dict[str, Any]:
    return {"totalCount": len(listing), "nodes": [_order(row) for row in listing.page(_INNER)]}


def _paged(name: str, shown: Callable[[Row], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def page(views: Following, after: Key | None) -> dict[str, Any]:
        rows = getattr(views, name).page(PAGE + 1, after)
        return {
            "nodes": [shown(row) for row in rows[:PAGE]],
            "pageInfo": {"hasNextPage": len(rows) > PAGE},
        }

    return page


def _order(row: Row) -> dict[str, Any]:
    return {
        "orderId": row["order_id"],
        "version": str(row["version"]),
        "eventId": row["event_id"],
        "status": row["status"],
        "customerId": row["customer_id"],
        "currency": row["currency"],
        **_money(row, _MONEY),
        "items": [
            {"sku": each["sku"], "quantity": each["quantity"], "unitPrice": each["unit_price"]}
            for each in row["items"]
        ],
        "paymentCount": row["payment_count"],
        "mismatchedPaymentCount": row["mismatched_payment_count"],
        "placedAt": _moment(row["placed_at"]),
        "updatedAt": _moment(row["updated_at"]),
        "source": _source(row),
    }


def _payment(row: Row) -> dict[str, Any]:
    return {
        "orderId": row["order_id"],
        "paymentId": row["payment_id"],
        "version": str(row["version"]),
        "eventId": row["event_id"],
        "status": row["status"],
        "currency": row["currency"],
        "amount": text(row["amount"]),
        "refundedAmount": text(row["refunded_amount"]),
        "method": row["method"],
        "occurredAt": _moment(row["occurred_at"]),
        "source": _source(row),
    }


def _sums(row: Row) -> dict[str, Any]:
    key = {"day": row["day"]} if "day" in row else {"customerId": row["customer_id"]}
    return {
        **key,
        "currency": row["currency"],
        "orderCount": row["order_count"],
        "cancelledCount": row["cancelled_count"],
        **_money(row, ("ordered", "paid", "refunded", "outstanding")),
    }


def _source(row: Row) -> dict[str, Any]:
    return {
        "topic": row["source_topic"],
        "partition": row["source_partition"],
        "offset": str(row["source_offset"]),
        "schemaId": row["source_schema_id"],
    }


def _money(row: Row, names: Sequence[str]) -> dict[str, str | None]:
    return {name: None if row[name] is None else text(row[name]) for name in names}


def _moment(micros: int) -> str:
    moment = datetime.fromisoformat(day(micros)) + timedelta(microseconds=micros % _MICROS_PER_DAY)
    return f"{moment.isoformat(timespec='microseconds')}Z"


_MICROS_PER_DAY: Final = 86_400_000_000
_PAGES: Final = {
    "orders": _paged("orders", _order),
    "payments": _paged("payments", _payment),
    "customerTotals": _paged("customer_totals", _sums),
    "dailySales": _paged("daily_sales", _sums),
}
