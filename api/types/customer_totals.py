"""`CustomerTotal`: the view `customer_totals` in GraphQL."""

from api.declare import Equal, Relation, ViewType
from views import customer_totals

TYPE = ViewType(
    view=customer_totals.VIEW,
    name="CustomerTotal",
    one="customer_total",
    many="customer_totals",
    doc="What the orders of one customer in one currency add up to.",
    filters=("customer_id", "currency"),
    orders=("customer_id", "currency"),
    relations=(
        Relation(
            name="orders",
            target="orders",
            by=(Equal("customer_id", "customer_id"), Equal("currency", "currency")),
            doc="The orders that are summed here.",
        ),
    ),
)
