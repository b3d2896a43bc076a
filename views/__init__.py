"""The catalogue: every view of the service, one line each.

This is the table of contents. A line names a file of this folder, which declares its `VIEW`, and
its `STREAM` where the view keeps a topic's events. Ingest, rebuild, migrations and the API work
from here; adding a line (docs/adding-a-view.md) is how a view becomes part of the service.
"""

from importlib import import_module

from views.model import Catalogue, StreamView, View

CONTENTS = (
    "orders",
    "payments",
    "customer_totals",
    "daily_sales",
)

VIEWS: tuple[View, ...] = tuple(import_module(f"views.{name}").VIEW for name in CONTENTS)
STREAMS = tuple(view.stream for view in VIEWS if isinstance(view, StreamView))

CATALOGUE = Catalogue(STREAMS, VIEWS)
