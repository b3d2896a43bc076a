"""The GraphQL schema: its views, one line each.

A line names a file of `api/types/`, which declares its `TYPE`. `python -m api.schema` prints the
schema; `make schema` keeps that beside this file, and a test compares.
"""

import sys
from importlib import import_module

from api.declare import ViewType
from api.graph import build_schema

CONTENTS = (
    "orders",
    "payments",
    "customer_totals",
    "daily_sales",
)

TYPES: tuple[ViewType, ...] = tuple(import_module(f"api.types.{name}").TYPE for name in CONTENTS)

SCHEMA = build_schema(TYPES)


def sdl() -> str:
    """The schema as text, with descriptions."""
    return SCHEMA.as_str() + "\n"


if __name__ == "__main__":
    sys.stdout.write(sdl())
