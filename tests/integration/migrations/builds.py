"""Builds beside the live one, as a rebuild makes them."""

from tests.integration.migrations.catalog import query
from views import CATALOGUE
from views.ddl import create_indexes, create_schema, create_tables, grant_reading


def add_build(dsn: str, number: int, *, state: str = "previous") -> None:
    """A build as a rebuild makes it."""
    build = f"build_{number}"
    statements = [*create_schema(build), *create_tables(build), *create_indexes(build)]
    statements += grant_reading(build, [view.name for view in CATALOGUE.views])
    for statement in statements:
        query(dsn, statement)
    query(
        dsn,
        "INSERT INTO ingest.builds (number, state, made_by) VALUES (%s, %s, 'test')",
        number,
        state,
    )
