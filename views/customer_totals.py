"""The view `customer_totals`: per customer and currency, what all visible orders add up to."""

from typing import Any

from sqlalchemy import Column, FromClause, Index, Select, Table, select

from views import orders
from views.model import BUILD, HOT, Aggregate, Key
from views.order_measures import measure_columns, measures_of

TABLE = Table(
    "customer_totals",
    BUILD,
    Column("customer_id", Key, primary_key=True, doc="Customer whose orders are summed."),
    Column("currency", Key, primary_key=True, doc="Currency of the orders, ISO 4217."),
    *measure_columns(),
    Index(None, "currency", "customer_id"),
    postgresql_with=HOT,
)


def _contributions(order: FromClause) -> Select[Any]:
    return select(order.c.customer_id, order.c.currency, *measures_of(order)).where(order.c.visible)


VIEW = Aggregate(
    table=TABLE,
    source=orders.VIEW,
    members="order_count",
    contributions=_contributions,
    customer_rows="customer_id = {customer}",
)
