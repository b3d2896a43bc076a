"""What PostgreSQL's own catalogue says of a schema, as text that can be compared."""

from collections.abc import Iterable
from typing import Any, Final

import psycopg

_PARTS: Final = (
    "SELECT 'schema', '{}', nspacl::text FROM pg_namespace WHERE nspname = %(schema)s",
    "SELECT 'relation', relname, relkind, relpersistence, reloptions::text, relacl::text "
    "FROM pg_class WHERE relnamespace = %(schema)s::regnamespace",
    "SELECT 'column', c.relname, attname, format_type(atttypid, atttypmod), attnotnull, "
    "collname, pg_get_expr(adbin, adrelid), attgenerated, attidentity, attstorage "
    "FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid AND relkind IN ('r', 'v') "
    "LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum "
    "LEFT JOIN pg_collation o ON o.oid = attcollation "
    "WHERE relnamespace = %(schema)s::regnamespace AND attnum > 0 AND NOT attisdropped",
    "SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = %(schema)s::regnamespace",
    "SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = %(schema)s",
    "SELECT 'view', viewname, definition FROM pg_views WHERE schemaname = %(schema)s",
    "SELECT 'function', proname, NULL FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace",
)
_SCHEMAS: Final = (
    "SELECT nspname FROM pg_namespace "
    "WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1"
)


def describe(dsn: str, schema: str) -> list[str]:
    """Everything in a schema, one line each, its own name replaced by {}."""
    with psycopg.connect(dsn) as connection:
        rows = [
            row
            for part in _PARTS
            for row in connection.execute(part.encode(), {"schema": schema}).fetchall()
        ]
    return sorted(_line(row).replace(schema, "{}") for row in rows)


def describe_all(dsn: str) -> dict[str, list[str]]:
    """Everything in every schema that is not PostgreSQL's own."""
    return {schema: describe(dsn, schema) for (schema,) in query(dsn, _SCHEMAS)}


def without_rights(lines: Iterable[str]) -> list[str]:
    """The same without who may do what, for schemas that were made by hand."""
    kept = (line for line in lines if not line.startswith("schema "))
    return [line.rpartition(" | ")[0] if line.startswith("relation") else line for line in kept]


def query(dsn: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run one statement, keep what it did, and return its rows."""
    with psycopg.connect(dsn) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def _line(row: tuple[Any, ...]) -> str:
    kind, *rest = row
    return f"{kind} " + " | ".join(str(value) for value in rest)
