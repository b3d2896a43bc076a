"""`Payment`: the view `payments` in GraphQL."""

from api.declare import Enumeration, Equal, Relation, ViewType
from views import payments

STATUS = Enumeration(
    "PaymentStatus",
    "Where a payment stands.",
    {
        "AUTHORIZED": "The amount is reserved; nothing is paid yet.",
        "CAPTURED": "The amount is paid.",
        "REFUNDED": "It was paid, and some or all of it was given back.",
        "FAILED": "It did not go through.",
        "VOIDED": "It was called off before it was paid.",
        "UNKNOWN": "A state that this service does not know yet.",
    },
)

TYPE = ViewType(
    view=payments.VIEW,
    name="Payment",
    one="payment",
    many="payments",
    doc="A payment at its latest version. It may be there before its order is.",
    filters=("order_id", "payment_id", "status", "occurred_at"),
    orders=("order_id", "status", "occurred_at"),
    enums={"status": STATUS},
    relations=(
        Relation(
            name="order",
            target="orders",
            by=(Equal("order_id", "order_id"),),
            doc="The order that is paid; null while it has not come, or when it was removed.",
            many=False,
        ),
    ),
)
