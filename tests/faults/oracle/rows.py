"""From the events that stand to the rows of the four views, in whole minor units.

Pure. A row is a plain mapping of column to value: amounts as integers in 1/10000, times as
microseconds since 1970, a day as its ISO date. Where a key moved between partitions and two events
of one version stand, a column whose value depends on which came first holds `OPEN`.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from tests.faults.oracle.events import Event

MICROS_PER_DAY = 86_400_000_000
SOURCE = (
    "source_topic",
    "source_partition",
    "source_offset",
    "source_schema_id",
    "source_recorded_at",
)
ORDER_EVENT = (
    "event_id",
    "status",
    "customer_id",
    "currency",
    "amount",
    "discount",
    "items",
    "placed_at",
    "updated_at",
)
PAYMENT_EVENT = (
    "event_id",
    "status",
    "currency",
    "amount",
    "refunded_amount",
    "method",
    "occurred_at",
)
MEASURES = ("order_count", "cancelled_count", "ordered", "paid", "refunded", "outstanding")
_PAID = frozenset({"CAPTURED", "REFUNDED"})

Row = dict[str, Any]


class Open(Enum):
    """A value that the log alone does not decide."""

    VALUE = "open"


OPEN: Final = Open.VALUE


@dataclass(slots=True)
class Views:
    """Every row of every view, by its key."""

    orders: dict[tuple[str, ...], Row]
    payments: dict[tuple[str, ...], Row]
    customer_totals: dict[tuple[str, ...], Row]
    daily_sales: dict[tuple[str, ...], Row]
    # Orders known only from a tombstone: a placeholder may be kept for them, or nothing.
    optional_orders: set[str]
    # Some order may or may not count in an aggregate, or in another group of it.
    undecided: bool

    def named(self) -> dict[str, dict[tuple[str, ...], Row]]:
        return {
            "orders": self.orders,
            "payments": self.payments,
            "customer_totals": self.customer_totals,
            "daily_sales": self.daily_sales,
        }


def views_of(
    orders: Mapping[str, Sequence[tuple[Event, bool]]],
    payments: Mapping[tuple[str, str], Sequence[Event]],
    *,
    removed_only: set[str],
) -> Views:
    """`orders` and `payments` give the candidates of each row; of an order also if it is hidden."""
    payment_rows: dict[tuple[str, ...], Row] = {}
    by_order: defaultdict[str, list[Row]] = defaultdict(list)
    for key, events in payments.items():
        row = _merge([_payment_row(event) for event in events])
        payment_rows[key] = row
        by_order[key[0]].append(row)
    order_rows: dict[tuple[str, ...], Row] = {}
    for order_id, candidates in orders.items():
        paying = by_order.get(order_id, [])
        rows = [_order_row(event, hidden, paying) for event, hidden in candidates]
        order_rows[order_id,] = _merge(rows)
    for order_id, paying in by_order.items():
        if order_id not in orders:
            order_rows[order_id,] = placeholder(order_id, len(paying))
    totals = _grouped(order_rows, _customer_keys)
    days = _grouped(order_rows, _day_keys)
    return Views(
        orders=order_rows,
        payments=payment_rows,
        customer_totals=totals,
        daily_sales=days,
        optional_orders=removed_only - set(by_order),
        undecided=any(_unnamed(order) for order in order_rows.values()),
    )


def _merge(rows: Sequence[Row]) -> Row:
    first = rows[0]
    if len(rows) == 1:
        return first
    return {
        column: value if all(row[column] == value for row in rows) else OPEN
        for column, value in first.items()
    }


def _source(event: Event) -> Row:
    record = event.record
    values = (
        record.topic,
        record.partition,
        record.offset,
        event.schema_id,
        record.timestamp_ms * 1000,
    )
    return dict(zip(SOURCE, values, strict=True))


def _payment_row(event: Event) -> Row:
    row: Row = {"order_id": event.key[0], "payment_id": event.key[1], "version": event.version}
    row.update((column, event.content[column]) for column in PAYMENT_EVENT)
    return row | _source(event)


def _order_row(event: Event, hidden: bool, payments: Sequence[Row]) -> Row:
    content = event.content
    row: Row = {"order_id": event.key[0], "version": event.version}
    row.update((column, content[column]) for column in ORDER_EVENT if column in content)
    row["updated_at"] = content["occurred_at"]
    row["items"] = [item | {"unit_price": text(item["unit_price"])} for item in content["items"]]
    row["visible"] = not hidden
    return row | _paid(row, payments) | _source(event)


def _paid(order: Row, payments: Sequence[Row]) -> Row:
    counted = [row for row in payments if row["currency"] == order["currency"]]
    settled = [row for row in counted if row["status"] in _PAID]
    unsure = any(
        row[name] is OPEN
        for row in payments
        for name in ("currency", "status", "amount", "refunded_amount")
    )
    if unsure:
        return dict.fromkeys(
            ("paid", "refunded", "outstanding", "mismatched_payment_count"), OPEN
        ) | {"payment_count": len(payments)}
    paid = sum(row["amount"] for row in settled)
    refunded = sum(row["refunded_amount"] for row in settled)
    due = 0 if order["status"] == "CANCELLED" else order["amount"] - (order["discount"] or 0)
    return {
        "paid": paid,
        "refunded": refunded,
        "outstanding": due - paid + refunded,
        "payment_count": len(payments),
        "mismatched_payment_count": len(payments) - len(counted),
    }


def placeholder(order_id: str, payment_count: int) -> Row:
    """An order that only its payments, or a tombstone, told of."""
    row: Row = {"order_id": order_id, "version": 0, "visible": False, "outstanding": None}
    row |= dict.fromkeys((*ORDER_EVENT, *SOURCE))
    row |= {"paid": 0, "refunded": 0, "mismatched_payment_count": 0}
    return row | {"payment_count": payment_count}


def _customer_keys(order: Row) -> tuple[Any, Any]:
    return order["customer_id"], order["currency"]


def _day_keys(order: Row) -> tuple[Any, Any]:
    placed_at = order["placed_at"]
    return (placed_at if placed_at is OPEN else day(placed_at)), order["currency"]


_GROUP_COLUMNS = {_customer_keys: "customer_id", _day_keys: "day"}


def _grouped(orders: Mapping[tuple[str, ...], Row], keys: Any) -> dict[tuple[str, ...], Row]:
    groups: dict[tuple[str, ...], Row] = {}
    for order in orders.values():
        if order["visible"] is False or _unnamed(order):
            continue
        key = keys(order)
        group = groups.setdefault(
            key,
            {_GROUP_COLUMNS[keys]: key[0], "currency": key[1]} | dict.fromkeys(MEASURES, 0),
        )
        for name, value in _measures(order).items():
            group[name] = OPEN if OPEN in (value, group[name]) else group[name] + value
    return groups


def _unnamed(order: Row) -> bool:
    """It cannot be told whether the order counts, or in which group."""
    named = (order["visible"], order["customer_id"], order["currency"], order["placed_at"])
    return OPEN in named and order["visible"] is not False


def _measures(order: Row) -> Row:
    status, amount, discount = order["status"], order["amount"], order["discount"]
    cancelled: Any = OPEN if status is OPEN else int(status == "CANCELLED")
    ordered: Any = OPEN
    if OPEN not in (cancelled, amount, discount):
        ordered = 0 if cancelled else amount - (discount or 0)
    return {
        "order_count": 1,
        "cancelled_count": cancelled,
        "ordered": ordered,
        "paid": order["paid"],
        "refunded": order["refunded"],
        "outstanding": order["outstanding"],
    }


def day(micros: int) -> str:
    """The UTC date, by whole days since 1970: no clock and no time zone takes part."""
    ordinal = datetime.date(1970, 1, 1).toordinal() + micros // MICROS_PER_DAY
    return datetime.date.fromordinal(ordinal).isoformat()


def text(minor: int) -> str:
    """12.3400 for 123400."""
    whole, rest = divmod(abs(minor), 10_000)
    return f"{'-' if minor < 0 else ''}{whole}.{rest:04d}"
