"""The words in which a view is declared to the API, and what follows from the table by itself.

A declaration says only what the catalogue's table does not: names, what may be filtered and
ordered, which fields may be null, and relations. Field names, GraphQL types and descriptions come
from the table. Both the plain resolvers and the compiler read these declarations and no other
source, so they cannot disagree about what a view is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Column

from api.kinds import LIST, Kind, kind_of
from views.model import StreamView, View

_SOURCE: Final = "source_"
_HIDDEN: Final = "visible"


@dataclass(frozen=True, slots=True)
class Enumeration:
    """A text column with a fixed set of symbols: GraphQL name and symbol -> description."""

    name: str
    doc: str
    symbols: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True)
class ListOf:
    """A JSON column that holds a list of objects; `parts` are the members of one of them."""

    name: str
    doc: str
    parts: tuple[Column[Any], ...]


@dataclass(frozen=True, slots=True)
class Equal:
    """A join: the target's column equals the row's."""

    column: str
    target: str


@dataclass(frozen=True, slots=True)
class OnDay:
    """A join: the target's moment lies in the UTC day that the row's column holds."""

    column: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A way from a row to rows of another view, by that view's name.

    To many it becomes a connection, with the target's filters and orders. To one, the joined
    columns of the target must be its key; the field is null where there is no such row.
    """

    name: str
    target: str
    by: tuple[Equal | OnDay, ...]
    doc: str
    many: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewField:
    """One column as a field of the GraphQL type."""

    column: str
    kind: Kind
    nullable: bool
    doc: str
    enumeration: Enumeration | None = None
    list_of: ListOf | None = None


@dataclass(frozen=True, kw_only=True)
class ViewType:
    """A view as a GraphQL type. Columns are named as in the table, everywhere.

    `filters` and `orders` name columns that an index begins with. Columns of a stream view are
    shown as never null unless they are in `nullable`: the table's own nullability also covers rows
    that readers never see. `DeclarationError` says what does not fit the table.
    """

    view: View
    name: str
    one: str
    many: str
    doc: str
    filters: tuple[str, ...]
    orders: tuple[str, ...]
    nullable: tuple[str, ...] = ()
    enums: Mapping[str, Enumeration] = field(default_factory=dict)
    lists: Mapping[str, ListOf] = field(default_factory=dict)
    relations: tuple[Relation, ...] = ()

    def __post_init__(self) -> None:
        columns = set(self.view.table.columns.keys())
        named = {*self.filters, *self.orders, *self.nullable, *self.enums, *self.lists}
        if missing := sorted(named - columns):
            raise DeclarationError(f"{self.name}: table {self.view.name} has no column {missing}")
        clashes = columns & ({"id", "source"} | {relation.name for relation in self.relations})
        if clashes:
            raise DeclarationError(f"{self.name}: {sorted(clashes)} name a column and a field")
        for name in (*self.orders, *self.view.key):
            if self.fields[name].nullable or not self.fields[name].kind.ordered:
                raise DeclarationError(f"{self.name}: rows cannot be ordered by {name}")
        for name, shown in self.fields.items():
            if not shown.doc:
                raise DeclarationError(f"column {self.view.name}.{name} has no `doc`")

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return self is other

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row."""
        return self.view.key

    @property
    def hides(self) -> bool:
        """Whether the table holds rows that no reader may see."""
        return isinstance(self.view, StreamView) and self.view.hides

    @cached_property
    def fields(self) -> dict[str, ViewField]:
        """Column -> field, in the table's order; provenance and visibility are not among them."""
        return {
            column.name: self._field(column)
            for column in self.view.table.columns
            if column.name != _HIDDEN and not column.name.startswith(_SOURCE)
        }

    @cached_property
    def has_source(self) -> bool:
        """Whether rows say which event made them."""
        return f"{_SOURCE}topic" in self.view.table.columns

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every column that a row of the answer may need."""
        return tuple(each.name for each in self.view.table.columns if each.name != _HIDDEN)

    def _field(self, column: Column[Any]) -> ViewField:
        from_table = not isinstance(self.view, StreamView) and bool(column.nullable)
        list_of = self.lists.get(column.name)
        return ViewField(
            column=column.name,
            kind=LIST if list_of else kind_of(column),
            nullable=from_table or column.name in self.nullable,
            doc=column.doc or "",
            enumeration=self.enums.get(column.name),
            list_of=list_of,
        )


class DeclarationError(TypeError):
    """A view's declaration does not fit its table. The message names both; mend the declaration."""
