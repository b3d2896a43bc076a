"""The catalogue: every stream and every view of the service, one line each.

This is the table of contents. Ingest, rebuild, migrations and the API read it; adding a line here
(docs/adding-a-view.md) is how a stream or a view becomes part of the service.
"""

from views import customer_totals, daily_sales, orders, payments
from views.model import Catalogue

STREAMS = (
    orders.STREAM,
    payments.STREAM,
)

VIEWS = (
    orders.VIEW,
    payments.VIEW,
    customer_totals.VIEW,
    daily_sales.VIEW,
)

CATALOGUE = Catalogue(STREAMS, VIEWS)
