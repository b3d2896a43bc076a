"""The view `orders`: the latest event of each order, and what its payments add up to.

A row is also there, hidden from every reader, for an order that was removed and for one that is
known only from a payment or a tombstone: it is where the streams of an order meet.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Computed,
    Index,
    Integer,
    Table,
    Text,
    func,
    text,
)

from views import payments
from views.model import (
    BUILD,
    CURRENCY,
    Columns,
    Key,
    Money,
    MoneySum,
    Rollup,
    Stream,
    StreamView,
    Timestamp,
    Tombstone,
    derived,
    source_columns,
    visible_column,
)

STREAM = Stream(
    topic="orders",
    contract="orders.avsc",
    key_field="order_id",
    tombstone=Tombstone.HIDES,
    compactable=True,
)

_ZERO = text("0")

TABLE = Table(
    "orders",
    BUILD,
    Column("order_id", Key, primary_key=True, doc="Identifies the order."),
    Column(
        "version",
        BigInteger,
        nullable=False,
        server_default=_ZERO,
        doc="Version of the order, 1 or more.",
    ),
    Column("event_id", Text, doc="Id of the event that made this row."),
    Column("status", Key, doc="Where the order stands."),
    Column("customer_id", Key, doc="Customer who placed the order."),
    Column("currency", Text, info=CURRENCY, doc="Currency of the order, ISO 4217."),
    Column("amount", Money, doc="Price of the whole order before its discount."),
    Column("discount", Money, doc="What is taken off the amount, if anything."),
    Column("items", JSON, doc="What was ordered, as a list of sku, quantity and unit_price."),
    Column("placed_at", Timestamp, doc="When the order was placed."),
    Column("updated_at", Timestamp, info={"field": "occurred_at"}, doc="When it last changed."),
    derived("paid", MoneySum, nullable=False, server_default=_ZERO, doc="Sum of its payments."),
    derived("refunded", MoneySum, nullable=False, server_default=_ZERO, doc="Sum paid back."),
    derived(
        "outstanding",
        MoneySum,
        Computed(
            "CASE WHEN status = 'CANCELLED' THEN 0 ELSE amount - coalesce(discount, 0) END"
            " - paid + refunded",
            persisted=True,
        ),
        doc="What is still to be paid: nothing for a cancelled order, less paid, plus refunded.",
    ),
    derived(
        "payment_count",
        Integer,
        nullable=False,
        server_default=_ZERO,
        doc="Number of its payments, whatever their status or currency.",
    ),
    derived(
        "mismatched_payment_count",
        Integer,
        nullable=False,
        server_default=_ZERO,
        doc="Number of its payments in another currency; they are not summed.",
    ),
    visible_column(),
    *source_columns(),
    Index(None, "customer_id", "order_id", postgresql_where=text("visible")),
    Index(None, "status", "order_id", postgresql_where=text("visible")),
    Index(None, "placed_at", "order_id", postgresql_where=text("visible")),
    postgresql_with={"fillfactor": "80"},
)


def _from_payments(order: Columns, payment: Columns) -> Mapping[str, ColumnElement[Any]]:
    same_currency = payment.currency == order.currency
    counts = same_currency & payment.status.in_(("CAPTURED", "REFUNDED"))
    return {
        "paid": func.coalesce(func.sum(payment.amount).filter(counts), 0),
        "refunded": func.coalesce(func.sum(payment.refunded_amount).filter(counts), 0),
        "payment_count": func.count(),
        "mismatched_payment_count": func.count().filter(payment.currency != order.currency),
    }


VIEW = StreamView(
    table=TABLE,
    stream=STREAM,
    rollup=Rollup(child=payments.VIEW, columns=_from_payments),
    customer_rows="customer_id = {customer}",
)
