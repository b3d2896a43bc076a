"""What one visible order adds to the totals: the measures that all sums over orders share."""

from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    Integer,
    Numeric,
    case,
    func,
    literal,
    type_coerce,
)

from views.model import MoneySum


def measure_columns() -> list[Column[Any]]:
    """The columns of the measures, for the table of an aggregate over orders."""
    return [
        Column("order_count", Integer, nullable=False, doc="Number of orders, cancelled ones too."),
        Column("cancelled_count", Integer, nullable=False, doc="Number of cancelled orders."),
        Column(
            "ordered",
            MoneySum,
            nullable=False,
            doc="Sum of amount less discount of the orders that are not cancelled.",
        ),
        Column("paid", MoneySum, nullable=False, doc="Sum of what was paid for the orders."),
        Column("refunded", MoneySum, nullable=False, doc="Sum of what was paid back."),
        Column("outstanding", MoneySum, nullable=False, doc="Sum of what is still to be paid."),
    ]


def measures_of(order: FromClause) -> list[ColumnElement[Any]]:
    """What one order adds to each measure, labelled with the measure's name."""
    cancelled = order.c.status == "CANCELLED"
    net = order.c.amount - func.coalesce(order.c.discount, 0)
    return [
        literal(1, Integer).label("order_count"),
        case((cancelled, 1), else_=0).label("cancelled_count"),
        type_coerce(case((cancelled, 0), else_=net), Numeric).label("ordered"),
        order.c.paid,
        order.c.refunded,
        order.c.outstanding,
    ]
