"""`DailySales`: the view `daily_sales` in GraphQL."""

from api.declare import Equal, OnDay, Relation, ViewType
from views import daily_sales

TYPE = ViewType(
    view=daily_sales.VIEW,
    name="DailySales",
    one="daily_sale",
    many="daily_sales",
    doc="What the orders placed on one UTC day in one currency add up to.",
    filters=("day", "currency"),
    orders=("day", "currency"),
    relations=(
        Relation(
            name="orders",
            target="orders",
            by=(OnDay("day", "placed_at"), Equal("currency", "currency")),
            doc="The orders that are summed here.",
        ),
    ),
)
