"""`where`: from the argument to a condition, and from a condition to SQL. Pure.

Stands apart because three readers need the same meaning: the page, the count, and the hash that
binds a cursor to the filter it came from.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from api.declare import ViewField, ViewType
from api.errors import BadUserInputError
from api.names import camel
from api.scalars import storable
from api.sql import Sql, column, joined, text

MAX_DEPTH: Final = 10
MAX_COMPARISONS: Final = 100
MAX_IN: Final = 500

OPERATORS: Final = {
    "eq": "=",
    "ne": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
}


@dataclass(frozen=True, slots=True)
class Compare:
    """A field against a value; `in` and `notIn` against a tuple of values."""

    field: ViewField
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class AllOf:
    """True when every part is: of no parts, always."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when one part is: of no parts, never."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True when its part is not."""

    part: "Condition"


Condition = Compare | AllOf | AnyOf | Not

EVERYTHING: Final = AllOf(())


def condition_of(view_type: ViewType, where: Mapping[str, Any] | None) -> Condition:
    """The condition that a `where` argument states, its names as in GraphQL.

    BadUserInputError: a null where a value belongs, a text that cannot be stored, or too much.
    """
    condition = _condition(view_type, where or {}, depth=0)
    if sum(1 for _ in _comparisons(condition)) > MAX_COMPARISONS:
        raise BadUserInputError(f"where: at most {MAX_COMPARISONS} comparisons")
    return condition


def sql_of(condition: Condition, table: str) -> Sql:
    """The condition over a table, by its alias. Two-valued: never null, whatever is null."""
    match condition:
        case Compare():
            return _compare_sql(condition, table)
        case AllOf(parts):
            return _group(parts, table, word="AND", empty="true")
        case AnyOf(parts):
            return _group(parts, table, word="OR", empty="false")
        case Not(part):
            return text("NOT ") + sql_of(part, table)


def digest(condition: Condition, order: tuple[tuple[str, bool], ...]) -> str:
    """What binds a cursor to its filter and order: eight hexadecimal digits."""
    state = json.dumps([_plain(condition), order], ensure_ascii=True)
    return hashlib.sha256(state.encode()).hexdigest()[:8]


def _condition(view_type: ViewType, where: Mapping[str, Any], *, depth: int) -> Condition:
    if depth > MAX_DEPTH:
        raise BadUserInputError(f"where: nested deeper than {MAX_DEPTH}")
    fields = {camel(name): view_type.fields[name] for name in view_type.filters}
    parts: list[Condition] = []
    for name, value in where.items():
        if value is None:
            raise BadUserInputError(f"where.{name}: null says nothing; leave it out, or use isNull")
        if name in ("and", "or"):
            inner = tuple(_condition(view_type, each, depth=depth + 1) for each in value)
            parts.append(AllOf(inner) if name == "and" else AnyOf(inner))
        elif name == "not":
            parts.append(Not(_condition(view_type, value, depth=depth + 1)))
        else:
            parts += _compares(fields[name], value)
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _compares(field: ViewField, operators: Mapping[str, Any]) -> Iterator[Compare]:
    for operator, value in operators.items():
        where = f"where.{camel(field.column)}.{operator}"
        if value is None:
            raise BadUserInputError(f"{where}: null equals nothing; use isNull")
        if operator in ("in", "notIn"):
            if len(value) > MAX_IN:
                raise BadUserInputError(f"{where}: at most {MAX_IN} values")
            yield Compare(field, operator, tuple(_value(each, where) for each in value))
        else:
            yield Compare(field, operator, _value(value, where))


def _value(value: Any, where: str) -> Any:
    plain = value.value if isinstance(value, Enum) else value
    if not isinstance(plain, str):
        return plain
    try:
        return storable(plain)
    except ValueError as error:
        raise BadUserInputError(f"{where}: {error}") from error


def _comparisons(condition: Condition) -> Iterator[Compare]:
    match condition:
        case Compare():
            yield condition
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _comparisons(part)
        case Not(part):
            yield from _comparisons(part)


def _group(parts: tuple[Condition, ...], table: str, *, word: str, empty: str) -> Sql:
    if not parts:
        return text(empty)
    return text("(") + joined(f" {word} ", [sql_of(part, table) for part in parts]) + text(")")


def _compare_sql(compare: Compare, table: str) -> Sql:
    name = column(table, compare.field.column)
    sql_type = compare.field.kind.sql
    match compare.operator:
        case "isNull":
            return text(f"({name} IS {'' if compare.value else 'NOT '}NULL)")
        case "in":
            found = Sql(f"({name} = ANY (%s::{sql_type}[]))", (list(compare.value),))
        case "notIn":
            found = Sql(f"({name} <> ALL (%s::{sql_type}[]))", (list(compare.value),))
        case "eq" if (symbols := compare.field.enumeration) is not None:
            # In the text, and each has a statement of its own: a plan for any of them reads a table
            # to its end for the few rows of a rare one.
            assert compare.value in symbols.symbols
            found = text(f"({name} = '{compare.value}'::{sql_type})")
        case operator:
            found = Sql(f"({name} {OPERATORS[operator]} %s::{sql_type})", (compare.value,))
    # Where a column may be null a comparison may be neither; `not` of it must still be true.
    return text("coalesce(") + found + text(", false)") if compare.field.nullable else found


def _plain(condition: Condition) -> Any:
    match condition:
        case Compare(field, operator, value):
            texts = [*value] if isinstance(value, tuple) else [value]
            if operator == "isNull":
                return [field.column, operator, bool(value)]
            return [field.column, operator, [field.kind.to_text(each) for each in texts]]
        case AllOf(parts):
            return ["and", *map(_plain, parts)]
        case AnyOf(parts):
            return ["or", *map(_plain, parts)]
        case Not(part):
            return ["not", _plain(part)]
