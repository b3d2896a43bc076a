"""`Order`: the view `orders` in GraphQL."""

from sqlalchemy import Column, Integer, Text

from api.declare import Enumeration, Equal, ListOf, Relation, ViewType
from views import orders
from views.model import Money

STATUS = Enumeration(
    "OrderStatus",
    "Where an order stands.",
    {
        "PLACED": "The customer has placed it.",
        "CONFIRMED": "The shop has accepted it.",
        "SHIPPED": "It is on its way.",
        "DELIVERED": "It has arrived.",
        "CANCELLED": "It was called off; nothing is to be paid.",
        "UNKNOWN": "A state that this service does not know yet.",
    },
)

ITEM = ListOf(
    "OrderItem",
    "One line of an order.",
    (
        Column("sku", Text, nullable=False, doc="Stock keeping unit: what was ordered."),
        Column("quantity", Integer, nullable=False, doc="How many of it."),
        Column("unit_price", Money, nullable=False, doc="Price of one, in the order's currency."),
    ),
)

TYPE = ViewType(
    view=orders.VIEW,
    name="Order",
    one="order",
    many="orders",
    doc="An order at its latest version, and what its payments add up to.",
    filters=("order_id", "customer_id", "status", "placed_at"),
    orders=("order_id", "customer_id", "status", "placed_at"),
    nullable=("discount",),
    enums={"status": STATUS},
    lists={"items": ITEM},
    relations=(
        Relation(
            name="payments",
            target="payments",
            by=(Equal("order_id", "order_id"),),
            doc="The payments of this order.",
        ),
        Relation(
            name="customer_totals",
            target="customer_totals",
            by=(Equal("customer_id", "customer_id"),),
            doc="What all orders of its customer add up to, one row per currency.",
        ),
    ),
)
