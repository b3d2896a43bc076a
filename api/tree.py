"""The tree of what an answer holds: which rows, which fields, in what order. Data, nothing else.

Stands apart because several work with it: `plan.py` makes it of an operation, `bind.py` reads the
arguments of the fields that have some, `compile.py` makes SQL of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from graphql import FieldNode, GraphQLField, GraphQLScalarType

from api.connection import ConnectionField
from api.declare import Relation, ViewField, ViewType

T = TypeVar("T")
Fields = tuple[tuple[str, T], ...]
"""Response key -> what stands there, in the order of the answer."""


def alias(number: int) -> str:
    """What a numbered row of the tree is called in SQL."""
    return f"t{number}"


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A field with arguments, as it is written. `fixed`: no variable has a say in them."""

    number: int
    definition: GraphQLField
    node: FieldNode
    fixed: bool


@dataclass(frozen=True, slots=True)
class TypeName:
    """`__typename`."""

    name: str


@dataclass(frozen=True, slots=True)
class Cell:
    """The value of a column."""

    field: ViewField


@dataclass(frozen=True, slots=True)
class GlobalId:
    """The id of the row."""


@dataclass(frozen=True, slots=True)
class Source:
    """The event that made the row, by columns."""

    fields: Fields["TypeName | str"]


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """A JSON column that holds a list of objects, by parts. `number`: its place among the lists."""

    number: int
    field: ViewField
    fields: Fields["TypeName | str"]


@dataclass(frozen=True, slots=True)
class ToOne:
    """The row that a relation leads to."""

    relation: Relation
    row: "Row"


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A row of a view. `number` tells which: rows of one page are the same rows."""

    number: int
    view_type: ViewType
    fields: Fields["TypeName | Cell | GlobalId | Source | Items | ToOne | ToMany"]


@dataclass(frozen=True, slots=True)
class Place:
    """A row's cursor."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """The rows of a page."""

    row: Row


@dataclass(frozen=True, slots=True)
class Edges:
    """The rows of a page with their cursors."""

    fields: Fields["TypeName | Place | Row"]


@dataclass(frozen=True, slots=True)
class PageInfo:
    """Which part of the list a page is, by the names of GraphQL."""

    fields: Fields["TypeName | str"]


@dataclass(frozen=True, slots=True)
class Total:
    """`totalCount`, or whether it is exact."""

    exactness: bool


@dataclass(frozen=True, slots=True, eq=False)
class ToMany:
    """A connection: of the query, or of the row around it."""

    number: int
    ask: Ask
    connection: ConnectionField
    fields: Fields[TypeName | Nodes | Edges | PageInfo | Total]


@dataclass(frozen=True, slots=True, eq=False)
class OneByKey:
    """The row with the key that the arguments say."""

    ask: Ask
    row: Row


@dataclass(frozen=True, slots=True, eq=False)
class ById:
    """The row with that global id, or the rows with those; by the type that an id names."""

    ask: Ask
    rows: Mapping[str, Row]
    many: bool


@dataclass(frozen=True, slots=True)
class Told:
    """A value in `position`."""

    name: str
    leaf: GraphQLScalarType


@dataclass(frozen=True, slots=True)
class Standing:
    """The root field `position`, or its list: made from what is read of the positions anyway."""

    name: str
    fields: Fields["TypeName | Told | Standing"]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A whole operation."""

    fields: Fields[TypeName | OneByKey | ById | ToMany | Standing]
    asking: tuple["Asking", ...]
    """The fields with arguments, by the numbers of their asks."""
    lists: tuple[Items, ...]


Asking = OneByKey | ById | ToMany
