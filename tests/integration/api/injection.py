"""Texts that want to become SQL, and every place of the schema that takes a value.

Knows arguments and inputs from the schema alone, so a new view is attacked without an edit here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from graphql import (
    GraphQLArgument,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    is_leaf_type,
)

MARK: Final = "zq7"
"""Stands in every payload: where a statement's text holds it, a value was not bound."""
HARMLESS: Final = f"{MARK}-harmless"

PAYLOADS: Final = tuple(
    text.replace("MARK", MARK)
    for text in (
        "MARK'",
        "MARK''",
        "MARK' OR '1'='1",
        "MARK' OR 1=1 --",
        "MARK') OR ('1'='1",
        "MARK'; DROP TABLE build_1.orders; --",
        "MARK'; DELETE FROM build_1.orders WHERE true; COMMIT; --",
        "MARK'; SELECT pg_sleep(30); --",
        "MARK' AND (SELECT pg_sleep(30)) IS NULL --",
        "MARK' UNION SELECT rolname FROM pg_roles --",
        "MARK'||(SELECT current_user)||'",
        "MARK' || set_config('role', 'none', false) || '",
        "MARK'; RESET ROLE; --",
        "MARK'; COPY (SELECT 1) TO PROGRAM 'touch /dev/null'; --",
        'MARK"; DROP SCHEMA build_1 CASCADE; --',
        'MARK" OR "order_id" = "order_id',
        "MARK\\'; SELECT 1; --",
        "MARK\\",
        "MARK%' ESCAPE '%",
        "MARK%s %(a)s %% %",
        "MARK$1 $2 $$ $q$ $q$",
        "MARK{0} {x} {{",
        "MARK/* */ -- \n;",
        "MARK\u02bc OR 1=1",
        "MARK\uff07 OR 1=1",
        "MARK\x1a\x08'",
        "E'MARK\\x27'",
        "MARK::text; SELECT 1",
        "MARK}'::text[]",
        "NULL--MARK",
        "orders:0:1' OR 'MARK'='MARK",
        "MARK\x00'; DROP TABLE build_1.orders; --",
    )
)


@dataclass(frozen=True, slots=True)
class Place:
    """An argument, or something inside of it: the operation, its variable, and where in that."""

    name: str
    operation: str
    path: tuple[str | int, ...]
    compares_equal: bool
    """Whether any two values that no row has must give the same answer here."""

    def variables(self, value: Any) -> dict[str, Any]:
        """The variables that put a value there."""
        for step in reversed(self.path):
            value = [value] if isinstance(step, int) else {step: value}
        return {"v": value}


_EQUAL: Final = ("eq", "ne", "in", "notIn", "orderId", "paymentId", "customerId", "id", "ids")


def places(schema: GraphQLSchema, ids: Mapping[str, str]) -> Iterator[Place]:
    """Every leaf of every argument of every field; `ids` say which object of a type to begin at."""
    for name, type_ in schema.type_map.items():
        if not isinstance(type_, GraphQLObjectType) or name.startswith("__"):
            continue
        if type_ is schema.query_type:
            yield from _of_type(type_, "query Q($v: {}) {{ {} }}")
        elif name in ids:
            around = f'query Q($v: {{}}) {{{{ node(id: "{ids[name]}") {{{{ ... on {name} '
            yield from _of_type(type_, around + "{{ {} }} }} }}")


def _of_type(type_: GraphQLObjectType, around: str) -> Iterator[Place]:
    for field_name, field in type_.fields.items():
        for name, argument in field.args.items():
            others = "".join(
                f", {other}: {_literal(each)}"
                for other, each in field.args.items()
                if other != name and isinstance(each.type, GraphQLNonNull)
            )
            inner = _selection(get_named_type(field.type))
            text = around.format(argument.type, f"{field_name}({name}: $v{others}) {inner}")
            for path in _leaves(argument.type):
                told = ".".join(map(str, (type_.name, field_name, name, *path)))
                last = [name, *(step for step in path if isinstance(step, str))][-1]
                yield Place(told, text, path, last in _EQUAL)


def _leaves(type_: Any, *, depth: int = 0) -> Iterator[tuple[str | int, ...]]:
    if isinstance(type_, GraphQLNonNull):
        yield from _leaves(type_.of_type, depth=depth)
    elif isinstance(type_, GraphQLList):
        yield from ((0, *path) for path in _leaves(type_.of_type, depth=depth))
    elif isinstance(type_, GraphQLInputObjectType):
        for name, field in type_.fields.items():
            if name not in ("and", "or", "not") or depth == 0:
                yield from ((name, *path) for path in _leaves(field.type, depth=depth + 1))
    else:
        yield ()


def _selection(type_: Any) -> str:
    if is_leaf_type(type_):
        return ""
    fields = getattr(type_, "fields", {})
    if "nodes" in fields:
        inner = _selection(get_named_type(fields["nodes"].type))
        return f"{{ totalCount nodes {inner} pageInfo {{ hasNextPage }} }}"
    return "{ id }" if "id" in fields else "{ __typename }"


def _literal(argument: GraphQLArgument) -> str:
    known = {"Date": '"2026-03-02"', "CurrencyCode": '"EUR"'}
    return known.get(get_named_type(argument.type).name, '"o001"')


def state(dsn: str) -> list[tuple[Any, ...]]:
    """All that is in a database, in a few lines: every table's rows, every object, every role."""
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c"
            " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%'"
            " AND n.nspname <> 'information_schema' ORDER BY 1"
        ).fetchall()
        found: list[tuple[Any, ...]] = []
        rows = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM"
        for (name,) in tables:
            found += [(name, *connection.execute(f"{rows} {name} AS t".encode()).fetchall())]
        for text in (
            "SELECT count(*), md5(string_agg(relname, '|' ORDER BY oid)) FROM pg_class",
            "SELECT count(*), md5(string_agg(proname, '|' ORDER BY oid)) FROM pg_proc",
            "SELECT md5(string_agg(r::text, '|' ORDER BY oid)) FROM pg_roles AS r",
            "SELECT md5(string_agg(s::text, '|' ORDER BY s::text)) FROM pg_db_role_setting AS s",
        ):
            found += connection.execute(text.encode()).fetchall()
        return found
