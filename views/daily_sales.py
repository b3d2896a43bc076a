"""The view `daily_sales`: per UTC day and currency, what the orders placed that day add up to."""

from typing import Any

from sqlalchemy import Column, Date, FromClause, Index, Select, Table, cast, func, select

from views import orders
from views.model import BUILD, HOT, Aggregate, Key
from views.order_measures import measure_columns, measures_of

TABLE = Table(
    "daily_sales",
    BUILD,
    Column("day", Date, primary_key=True, doc="UTC date on which the orders were placed."),
    Column("currency", Key, primary_key=True, doc="Currency of the orders, ISO 4217."),
    *measure_columns(),
    Index(None, "currency", "day"),
    postgresql_with=HOT,
)


def _contributions(order: FromClause) -> Select[Any]:
    day = cast(func.timezone("UTC", order.c.placed_at), Date).label("day")
    return select(day, order.c.currency, *measures_of(order)).where(order.c.visible)


VIEW = Aggregate(
    table=TABLE, source=orders.VIEW, members="order_count", contributions=_contributions
)
