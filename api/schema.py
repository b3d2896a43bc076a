"""The GraphQL schema: its views, one line each.

`python -m api.schema` prints it; `make schema` keeps that beside this file, and a test compares.
"""

import sys

from api.graph import build_schema
from api.types import customer_totals, daily_sales, orders, payments

TYPES = (
    orders.TYPE,
    payments.TYPE,
    customer_totals.TYPE,
    daily_sales.TYPE,
)

SCHEMA = build_schema(TYPES)


def sdl() -> str:
    """The schema as text, with descriptions."""
    return SCHEMA.as_str() + "\n"


if __name__ == "__main__":
    sys.stdout.write(sdl())
