"""I4: each sampled answer is what the log says up to the answer's own position.

An order's answer needs only the events of its key, so thousands can be checked; sales need the
whole log up to there, so a few are. Pure, but for the registry that the oracle asks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tests.faults.oracle import Record, expect
from tests.faults.oracle.events import FindSchema
from tests.faults.oracle.fold import Recorded
from tests.faults.oracle.rows import OPEN, text
from tests.faults.soak.readers import Position, Sample

_ORDER: Final = {
    "orderId": "order_id",
    "version": "version",
    "eventId": "event_id",
    "status": "status",
    "customerId": "customer_id",
    "currency": "currency",
    "amount": "amount",
    "discount": "discount",
    "paid": "paid",
    "refunded": "refunded",
    "outstanding": "outstanding",
    "paymentCount": "payment_count",
    "mismatchedPaymentCount": "mismatched_payment_count",
}
_PAYMENT: Final = {
    "paymentId": "payment_id",
    "version": "version",
    "eventId": "event_id",
    "status": "status",
    "currency": "currency",
    "amount": "amount",
    "refundedAmount": "refunded_amount",
    "method": "method",
}
_SALES: Final = {
    "day": "day",
    "currency": "currency",
    "orderCount": "order_count",
    "cancelledCount": "cancelled_count",
    "ordered": "ordered",
    "paid": "paid",
    "refunded": "refunded",
    "outstanding": "outstanding",
}
_MONEY: Final = frozenset(
    {"amount", "discount", "paid", "refunded", "outstanding", "refunded_amount", "ordered"}
)
Row = Mapping[str, Any]


def wrong_orders(
    samples: Iterable[Sample], log: Iterable[Record], find: FindSchema, recorded: Recorded
) -> list[str]:
    """What is wrong in answers about one order each."""
    of_key: dict[bytes, list[Record]] = defaultdict(list)
    for record in log:
        if record.key is not None:
            of_key[record.key].append(record)
    return [
        f"order {sample.order_id} at {dict(sample.position)}: {said}"
        for sample in samples
        for said in _order_said(sample, of_key[str(sample.order_id).encode()], find, recorded)
    ]


def wrong_sales(
    samples: Iterable[Sample], log: Sequence[Record], find: FindSchema, recorded: Recorded
) -> list[str]:
    """What is wrong in answers about all sales."""
    return [
        f"daily sales at {dict(sample.position)}: {said}"
        for sample in samples
        for said in _sales_said(sample, log, find, recorded)
    ]


def _until(log: Iterable[Record], position: Position) -> list[Record]:
    return [r for r in log if r.offset < position.get((r.topic, r.partition), 0)]


def _order_said(
    sample: Sample, log: Iterable[Record], find: FindSchema, recorded: Recorded
) -> Iterator[str]:
    views = expect(_until(log, sample.position), find, recorded=recorded).views
    must = views.orders.get((str(sample.order_id),))
    has = sample.data["order"]
    if must is None or must["visible"] is False:
        if has is not None:
            yield "it must not be seen"
        return
    if has is None:
        yield "it is not seen"
        return
    yield from _differing(has, must, _ORDER)
    paid = {key[1]: row for key, row in views.payments.items() if key[0] == sample.order_id}
    nodes = {node["paymentId"]: node for node in has["payments"]["nodes"]}
    if set(nodes) != set(paid):
        yield f"payments are {sorted(nodes)}, must be {sorted(paid)}"
        return
    for payment_id, node in nodes.items():
        yield from _differing(node, paid[payment_id], _PAYMENT)


def _sales_said(
    sample: Sample, log: Iterable[Record], find: FindSchema, recorded: Recorded
) -> Iterator[str]:
    views = expect(_until(log, sample.position), find, recorded=recorded).views
    answer = sample.data["dailySales"]
    nodes = {(node["day"], node["currency"]): node for node in answer["nodes"]}
    missing = set(views.daily_sales) - set(nodes)
    if missing and not answer["pageInfo"]["hasNextPage"]:
        yield f"{sorted(missing)[:3]} is missing"
    for key, node in nodes.items():
        must = views.daily_sales.get(key)
        if must is None:
            yield f"{key} must not exist"
        else:
            yield from _differing(node, must, _SALES)


def _differing(has: Row, must: Row, names: Mapping[str, str]) -> Iterator[str]:
    for shown, column in names.items():
        value = must[column]
        if value is not OPEN and str(has[shown]) != _shown(column, value):
            yield f"{shown} is {has[shown]!r}, must be {_shown(column, value)!r}"


def _shown(column: str, value: Any) -> str:
    return text(value) if column in _MONEY and value is not None else str(value)
