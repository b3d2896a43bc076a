"""The arguments of one request: what of them shapes the SQL, and the values that travel beside it.

Stands apart because it is what is left to do for every request once plan and text are known. The
arguments are read by the functions that the plain path uses, so both refuse the same ones and a
cursor means the same to both. Why one is refused no client hears from here: the plain way says it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from graphql.execution.values import VariableValues, get_argument_values

from api.declare import ViewType
from api.errors import BadUserInputError
from api.filters import condition_of, digest, sql_of
from api.names import camel
from api.opaque import NotOursError, row_of
from api.page import (
    Cursor,
    CursorScope,
    Order,
    PageArguments,
    PageSizes,
    beyond_sql,
    order_of,
    upto_sql,
    window_of,
)
from api.scalars import storable
from api.sql import Sql
from api.tree import Asking, ById, OneByKey, ToMany, alias

_PAGING: Final = ("first", "last", "after", "before")


class KeyShape(NamedTuple):
    """A key: nothing but its values."""

    width: int

    def __str__(self) -> str:
        return "key"


class IdsShape(NamedTuple):
    """Which types the ids name, in the order of their values."""

    types: tuple[str, ...]
    width: int

    def __str__(self) -> str:
        return f"ids of {' '.join(self.types)}"


class PlaceShape(NamedTuple):
    """A cursor: what lies beyond it, and what up to it. Both have the same values."""

    beyond: str
    upto: str


class PageShape(NamedTuple):
    """What of a connection's arguments is in the SQL's text. A condition has one `%s` per value."""

    where: str
    after: "PlaceShape | None"
    before: "PlaceShape | None"
    order: Order
    size: int
    backward: bool
    width: int

    def __str__(self) -> str:
        cursors = [name for name in ("after", "before") if getattr(self, name) is not None]
        order = ", ".join(f"{each.column}{' desc' * each.descending}" for each in self.order)
        ends = ["from the end"] if self.backward else []
        return " ".join([f"where {self.where}", f"by {order}", *cursors, *ends])


Shape = KeyShape | IdsShape | PageShape
"""All that the text depends on, and how many values there are beside it."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One field's arguments, read."""

    shape: Shape
    values: tuple[Any, ...]
    scope: CursorScope | None = None
    cursors: tuple[Cursor, ...] = ()


class Binder:
    """Reads arguments; knows page sizes, and the types that ids name."""

    def __init__(self, types: Sequence[ViewType], sizes: PageSizes) -> None:
        self._types = {each.name: each for each in types}
        self._sizes = sizes

    def bind(self, field: Asking, variables: VariableValues) -> Bound:
        """A field's arguments. GraphQLError (BadUserInputError is one): they are refused."""
        given = get_argument_values(
            field.ask.definition, field.ask.node, variables, hide_suggestions=True
        )
        match field:
            case OneByKey():
                return _by_key(field.row.view_type, given)
            case ById(many=False):
                view_type, key = self._row_of(given["id"])
                values = tuple(_texts(view_type, key))
                return Bound(IdsShape((view_type.name,), len(values)), values)
            case ById():
                return self._by_ids(given["ids"])
            case ToMany():
                return _page(field, given, self._sizes)

    def _by_ids(self, ids: Sequence[str]) -> Bound:
        """Per type that is named, in turn: a list of values per key column, and of places."""
        if len(ids) > self._sizes.most:
            raise BadUserInputError("nodes: too many ids", limit=self._sizes.most)
        found: dict[str, list[list[str]]] = {}
        for place, node_id in enumerate(ids):
            view_type, key = self._row_of(node_id)
            found.setdefault(view_type.name, []).append([*_texts(view_type, key), str(place)])
        columns = (list(column) for rows in found.values() for column in zip(*rows, strict=True))
        values = tuple(columns)
        return Bound(IdsShape(tuple(found), len(values)), values)

    def _row_of(self, node_id: str) -> tuple[ViewType, tuple[object, ...]]:
        try:
            return row_of(node_id, self._types)
        except NotOursError as error:
            raise BadUserInputError("id: this is not an id of this service") from error


def _by_key(view_type: ViewType, given: Mapping[str, Any]) -> Bound:
    values = [given[camel(name)] for name in view_type.key]
    for name, value in zip(view_type.key, values, strict=True):
        if isinstance(value, str):
            _require_storable(name, value)
    return Bound(KeyShape(len(values)), tuple(_texts(view_type, values)))


def _require_storable(name: str, value: str) -> None:
    try:
        storable(value)
    except ValueError as error:
        raise BadUserInputError(f"{camel(name)}: {error}") from error


def _page(field: ToMany, given: Mapping[str, Any], sizes: PageSizes) -> Bound:
    target = field.connection.target
    condition = condition_of(target, given.get("where"))
    order = order_of(target, given.get("orderBy"))
    arguments = PageArguments(**{name: given.get(name) for name in _PAGING})
    terms = tuple((term.column, term.descending) for term in order)
    scope = CursorScope(field.connection.scope, digest(condition, terms))
    window = window_of(target, order, arguments=arguments, scope=scope, sizes=sizes)
    table = alias(field.number)
    where = sql_of(condition, table)
    pieces = [where]

    def place(cursor: Cursor | None, *, after: bool) -> PlaceShape | None:
        if cursor is None:
            return None
        beyond, upto = (
            side(target, order, cursor=cursor, table=table, after=after)
            for side in (beyond_sql, upto_sql)
        )
        pieces.append(beyond)
        return PlaceShape(beyond.text, upto.text)

    after, before = place(window.after, after=True), place(window.before, after=False)
    values = tuple(_wire(pieces))
    shape = PageShape(
        where=where.text,
        after=after,
        before=before,
        order=order,
        size=window.size,
        backward=window.backward,
        width=len(values),
    )
    return Bound(shape, values, scope, window.cursors)


def _texts(view_type: ViewType, key: Iterable[Any]) -> Iterable[str]:
    kinds = (view_type.fields[name].kind for name in view_type.key)
    return (kind.to_text(value) for kind, value in zip(kinds, key, strict=True))


def _wire(pieces: Iterable[Sql]) -> Iterable[Any]:
    """Numbers as text: their type on the wire would depend on their size, and a plan on that."""
    for piece in pieces:
        for value in piece.values:
            if type(value) is int:
                yield str(value)
            elif isinstance(value, list):
                yield [str(each) if type(each) is int else each for each in value]
            else:
                yield value
