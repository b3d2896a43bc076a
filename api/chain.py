"""JSON as SQL: how values stand in an answer, and chains of texts that make objects of them.

`'{"a":' || t1.a || ',"b":' || ... || '}'` costs half of `json_build_object`, and is byte for byte
what the plain path prints. A chain is null as soon as one of its values is: so a row shows that it
breaks its type. Stands apart from `compile.py`, which knows of rows and pages; this knows of
columns and texts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from api.declare import ViewField
from api.kinds import Kind

MARK: Final = "\x01"
"""Stands on both sides of what `splice.py` makes another text of. No JSON holds it as it is."""
BROKEN: Final = "\x02"
"""Stands for an object that the types of the schema cannot show."""


class Expression(str):
    """SQL that gives a text. Any other string among the parts of a chain is the text itself."""

    __slots__ = ()


Parts = Sequence[str]


def chain(parts: Parts) -> str:
    """The parts as one SQL expression: texts that meet become one."""
    pieces: list[str] = []
    words = ""
    for part in parts:
        if isinstance(part, Expression):
            pieces += [_literal(words), part] if words else [part]
            words = ""
        else:
            words += part
    return " || ".join([*pieces, _literal(words)] if words else pieces)


def object_of(fields: Iterable[tuple[str, Parts]]) -> Parts:
    """A JSON object. Keys are names of GraphQL: nothing in them needs an escape."""
    parts = ["{"]
    for index, (key, value) in enumerate(fields):
        parts += [f'{"," if index else ""}"{key}":', *value]
    return [*parts, "}"]


def whole(parts: Parts) -> Expression:
    """An object, or BROKEN: never null, so that nothing is left out of a list in silence."""
    return Expression(f"coalesce({chain(parts)}, {_literal(BROKEN)})")


def or_null(expression: str) -> Expression:
    """JSON's null where there is none."""
    return Expression(f"coalesce({expression}, 'null')")


def string(text: str) -> Parts:
    """A text that needs no escape, as JSON."""
    return [f'"{text}"']


def value_of(kind: Kind, at: str) -> Parts:
    """A value as JSON; null where it is null."""
    # Texts all: to put one of another type into a chain takes PostgreSQL a query of its own each
    # time it plans.
    made = kind.sql_text.format(at)
    match kind.shown:
        case "string":
            return [Expression(f"to_json({made})::text")]
        case "quoted":
            return ['"', Expression(f"{made}::text"), '"']
        case "bare":
            return [Expression(f"{made}::text")]


def texts_of(kinds: Mapping[str, Kind]) -> Parts:
    """Values, by their columns, as JSON strings, separated as `opaque.packed` does it."""
    parts: list[str] = []
    for at, kind in kinds.items():
        value = value_of(kind, at)
        text = ['"', *value, '"'] if kind.shown == "bare" else value
        parts += [", ", *text] if parts else text
    return parts


def cell(shown: ViewField, at: str) -> Parts:
    """The value of a column as its field shows it."""
    if shown.enumeration is not None:
        return [_symbol(shown.enumeration.symbols, at, nullable=shown.nullable)]
    value = value_of(shown.kind, at)
    return [or_null(chain(value))] if shown.nullable else value


def as_it_is(shown: ViewField, number: int, at: str) -> Parts:
    """A JSON list as it is stored; `lists.py` makes of it what the field of that number shows."""
    parts = [MARK, f"*{number}:", Expression(f"{at}::text"), MARK]
    return [or_null(chain(parts))] if shown.nullable else parts


def _symbol(symbols: Iterable[str], at: str, *, nullable: bool) -> Expression:
    """A symbol of an enum; null for a text that is none of them."""
    cases = [f"WHEN {at} = '{symbol}' THEN '\"{symbol}\"'" for symbol in symbols]
    if nullable:
        cases.append(f"WHEN {at} IS NULL THEN 'null'")
    return Expression(f"CASE {' '.join(cases)} END")


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    if MARK in text or BROKEN in text:
        escaped = quoted.replace("\\", "\\\\").replace(MARK, "\\x01").replace(BROKEN, "\\x02")
        return f"E'{escaped}'"
    return f"'{quoted}'"
