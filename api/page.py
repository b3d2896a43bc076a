"""Pages: the Relay rules for `first/after/last/before`, orders, and keyset cursors. Pure.

A cursor holds where it comes from (which connection, filter and order), the position at which it
was made, and the values that order its row. Pages are found by comparing those values, never by
counting rows, so rows that come and go between two pages shift nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from api.declare import ViewType
from api.errors import BadUserInputError
from api.names import screaming
from api.opaque import NotOursError, packed, unpacked
from api.sql import TRUE, Sql, column, joined, text

_CURSOR_VERSION: Final = "1"


@dataclass(frozen=True, slots=True)
class Term:
    """One column of an order."""

    column: str
    descending: bool = False


Order = tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class CursorScope:
    """What a cursor is bound to: the connection, and the digest of its filter and order."""

    connection: str
    digest: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in an order, and the position of the snapshot in which it was seen."""

    key: tuple[Any, ...]
    position: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which part of a connection is asked for."""

    size: int
    backward: bool = False
    after: Cursor | None = None
    before: Cursor | None = None

    @property
    def cursors(self) -> tuple[Cursor, ...]:
        """Those that are given."""
        return tuple(cursor for cursor in (self.after, self.before) if cursor is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageArguments:
    """The paging arguments of a connection as they came."""

    first: int | None = None
    last: int | None = None
    after: str | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class PageSizes:
    """How many rows a page has when nobody says, and at most."""

    default: int
    most: int


def order_of(view_type: ViewType, order_by: Sequence[Mapping[str, Any]] | None) -> Order:
    """The order of an `orderBy` argument, made total by the key.

    The key follows the direction of the last term, so that one index serves the whole order.
    BadUserInputError: a field is named twice.
    """
    columns = {screaming(name): name for name in view_type.orders}
    terms = [Term(columns[_plain(each["field"])], _is_down(each)) for each in order_by or ()]
    named = [term.column for term in terms]
    if len(set(named)) < len(named):
        raise BadUserInputError("orderBy: a field is named twice")
    down = terms[-1].descending if terms else False
    return (*terms, *(Term(name, down) for name in view_type.key if name not in named))


def _is_down(term: Mapping[str, Any]) -> bool:
    return bool(_plain(term.get("direction", "ASC")) == "DESC")


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def window_of(
    view_type: ViewType,
    order: Order,
    *,
    arguments: PageArguments,
    scope: CursorScope,
    sizes: PageSizes,
) -> Window:
    """The window that the paging arguments ask for. BadUserInputError: they make no sense."""
    first, last = arguments.first, arguments.last
    if first is not None and last is not None:
        raise BadUserInputError("first and last cannot go together: say which end counts")
    backward = last is not None or (first is None and arguments.before is not None)
    size = next((n for n in (first, last) if n is not None), sizes.default)
    if not 0 <= size <= sizes.most:
        name = "last" if last is not None else "first"
        raise BadUserInputError(f"{name}: between 0 and {sizes.most}", limit=sizes.most)

    def place(name: str, text_: str | None) -> Cursor | None:
        if text_ is None:
            return None
        return cursor_of(text_, name=name, view_type=view_type, order=order, scope=scope)

    return Window(
        size=size,
        backward=backward,
        after=place("after", arguments.after),
        before=place("before", arguments.before),
    )


def cursor_prefix(scope: CursorScope, position: str) -> str:
    """The part that all cursors of one page share."""
    return packed([_CURSOR_VERSION, scope.connection, scope.digest, position])


def cursor_text(prefix: str, texts: Sequence[str]) -> str:
    """A cursor: prefix, the texts of its row's order columns, and a checksum of both."""
    return sealed(prefix, packed(texts))


def sealed(prefix: str, texts: str) -> str:
    """A cursor whose texts are packed already."""
    body = f"{prefix}.{texts}"
    return f"{body}.{_checksum(body)}"


def row_cursor(view_type: ViewType, order: Order, *, row: Mapping[str, Any], prefix: str) -> str:
    """The cursor of a row."""
    kinds = ((term.column, view_type.fields[term.column].kind) for term in order)
    return cursor_text(prefix, [kind.to_text(row[name]) for name, kind in kinds])


def cursor_of(
    text_: str, *, name: str, view_type: ViewType, order: Order, scope: CursorScope
) -> Cursor:
    """Read a cursor. BadUserInputError: not ours, changed, or of another connection or filter."""
    try:
        prefix, key_text, checksum = text_.split(".")
        if checksum != _checksum(f"{prefix}.{key_text}"):
            raise NotOursError(text_)
        version, connection, digest, position = unpacked(prefix)
        kinds = [view_type.fields[term.column].kind for term in order]
        if (version, connection, digest) != (_CURSOR_VERSION, scope.connection, scope.digest):
            raise BadUserInputError(f"{name}: the cursor comes from another list, filter or order")
        pairs = zip(kinds, unpacked(key_text), strict=True)
        return Cursor(tuple(kind.from_text(part) for kind, part in pairs), position)
    except ValueError as error:
        raise BadUserInputError(f"{name}: this is not a cursor of this list") from error


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:8]


def order_sql(order: Order, table: str, *, backward: bool) -> Sql:
    """ORDER BY's list; reversed for a page that is counted from its end."""
    terms = (
        f"{column(table, term.column)} {'DESC' if term.descending != backward else 'ASC'}"
        for term in order
    )
    return text(", ".join(terms))


def beyond_sql(
    view_type: ViewType, order: Order, *, cursor: Cursor | None, table: str, after: bool
) -> Sql:
    """That a row lies strictly after (or before) a cursor in the order; true without a cursor."""
    if cursor is None:
        return TRUE
    names, values = _compared(view_type, order, cursor=cursor, table=table)
    signs = [">" if term.descending != after else "<" for term in order]
    if len(set(signs)) == 1:
        return _row_compare(names, signs[0], values=values)
    return _mixed_compare(names, signs, values=values)


def upto_sql(view_type: ViewType, order: Order, *, cursor: Cursor, table: str, after: bool) -> Sql:
    """That a row lies at a cursor or on its other side: what `beyond_sql` leaves out.

    It has the same values in the same places.
    """
    names, values = _compared(view_type, order, cursor=cursor, table=table)
    signs = ["<" if term.descending != after else ">" for term in order]
    if len(set(signs)) == 1:
        return _row_compare(names, f"{signs[0]}=", values=values)
    return text("NOT ") + beyond_sql(view_type, order, cursor=cursor, table=table, after=after)


def _compared(
    view_type: ViewType, order: Order, *, cursor: Cursor, table: str
) -> tuple[list[str], list[Sql]]:
    names = [column(table, term.column) for term in order]
    values = [
        Sql(f"%s::{view_type.fields[term.column].kind.sql}", (value,))
        for term, value in zip(order, cursor.key, strict=True)
    ]
    return names, values


def _row_compare(names: list[str], sign: str, *, values: list[Sql]) -> Sql:
    # One row comparison, because PostgreSQL walks an index from there; an OR of terms it filters.
    return text(f"(({', '.join(names)}) {sign} (") + joined(", ", values) + text("))")


def _mixed_compare(names: list[str], signs: list[str], *, values: list[Sql]) -> Sql:
    ways = []
    for index, (name, sign) in enumerate(zip(names, signs, strict=True)):
        equal = [text(f"{names[i]} = ") + values[i] for i in range(index)]
        ways.append(joined(" AND ", [*equal, text(f"{name} {sign} ") + values[index]]))
    return text("(") + joined(" OR ", [text("(") + way + text(")") for way in ways]) + text(")")
