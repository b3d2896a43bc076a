"""The view `payments`: the latest event of each payment, also of orders that have not come yet."""

from sqlalchemy import BigInteger, Column, Index, Table, Text

from views.model import BUILD, CURRENCY, Key, Money, Stream, StreamView, Timestamp, source_columns

STREAM = Stream(topic="payments", contract="payments.avsc", key_field="order_id")

TABLE = Table(
    "payments",
    BUILD,
    Column("order_id", Key, primary_key=True, doc="Order that is paid for."),
    Column("payment_id", Key, primary_key=True, doc="Identifies the payment within its order."),
    Column("version", BigInteger, nullable=False, doc="Version of the payment, 1 or more."),
    Column("event_id", Text, nullable=False, doc="Id of the event that made this row."),
    Column("status", Key, nullable=False, doc="Where the payment stands."),
    Column(
        "currency", Text, info=CURRENCY, nullable=False, doc="Currency of the payment, ISO 4217."
    ),
    Column("amount", Money, nullable=False, doc="Amount of the payment."),
    Column("refunded_amount", Money, nullable=False, doc="How much of it was paid back."),
    Column("method", Text, nullable=False, doc="How it was paid, as the producer names it."),
    Column("occurred_at", Timestamp, nullable=False, doc="When the event happened."),
    *source_columns(),
    Index(None, "occurred_at", "order_id", "payment_id"),
    Index(None, "status", "order_id", "payment_id"),
)

VIEW = StreamView(
    table=TABLE,
    stream=STREAM,
    # An array, because an index can be asked for its elements: EXISTS looks at every payment.
    customer_rows=(
        "order_id = ANY (ARRAY(SELECT o.order_id FROM {build}.orders AS o"
        " WHERE o.visible AND o.customer_id = {customer}))"
    ),
)
