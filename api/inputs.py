"""The GraphQL inputs that come from declarations: filters, `where` and `orderBy` of each view.

Stands apart from the object types because inputs have one rule of their own: what is left out is
not the same as null.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Optional

import strawberry
from strawberry.types import get_object_definition

from api.declare import Enumeration, ViewField, ViewType
from api.names import camel, screaming
from api.objects import SortDirection

_ALWAYS = {
    "eq": "Equals.",
    "ne": "Does not equal.",
    "in": "Equals one of these, at most 500.",
    "notIn": "Equals none of these, at most 500.",
}
_ORDERED = {
    "lt": "Is less.",
    "lte": "Is less or equal.",
    "gt": "Is greater.",
    "gte": "Is greater or equal.",
}
_LISTS = ("in", "notIn")


@dataclass(frozen=True, slots=True)
class Inputs:
    """The two inputs of a view's connections."""

    where: type
    order_by: type


class InputTypes:
    """Makes each input once, and remembers it by name."""

    def __init__(self) -> None:
        self._enums: dict[str, type[Enum]] = {}
        self._filters: dict[str, type] = {}

    def annotation(self, field: ViewField) -> Any:
        """What Strawberry makes the type of a plain field from."""
        return self.enum(field.enumeration) if field.enumeration else field.kind.annotation

    def enum(self, declared: Enumeration) -> type[Enum]:
        """The enum of a column with a fixed set of symbols."""
        if declared.name not in self._enums:
            self._enums[declared.name] = _enum(declared.name, declared.doc, declared.symbols)
        return self._enums[declared.name]

    def of(self, view_type: ViewType) -> Inputs:
        """The `where` and `orderBy` of a view."""
        symbols = {screaming(each): view_type.fields[each].doc for each in view_type.orders}
        name = f"{view_type.name}SortField"
        field = _enum(name, f"What {view_type.name} rows can be ordered by.", symbols)
        order_by = _input(
            f"{view_type.name}Sort",
            f"One term of an order of {view_type.name} rows.",
            {
                "field": (field, strawberry.field(description="What to order by.")),
                "direction": (
                    SortDirection,
                    strawberry.field(description="Which way it runs.", default=SortDirection.ASC),
                ),
            },
        )
        return Inputs(self._where(view_type), order_by)

    def _where(self, view_type: ViewType) -> type:
        where: Any = type(f"{view_type.name}Where", (), {})
        members = {
            name: (self._filter(field), field.doc)
            for name, field in view_type.fields.items()
            if name in view_type.filters
        }
        members |= {
            "and": (list[where], "Every one of these is true."),
            "or": (list[where], "At least one of these is true."),
            "not": (where, "This is not true."),
        }
        doc = f"Which {view_type.name} rows: all that is said here must be true."
        return _complete(where, doc, {name: _optional(*each) for name, each in members.items()})

    def _filter(self, field: ViewField) -> type:
        scalar = self.annotation(field)
        name = field.enumeration.name if field.enumeration else field.kind.name
        if name not in self._filters:
            self._filters[name] = _filter(name, scalar, ordered=_is_ordered(field))
        return self._filters[name]


def mapping_of(value: Any) -> Any:
    """An input as plain mappings and lists, spelled as in GraphQL, without what was left out."""
    if isinstance(value, list):
        return [mapping_of(each) for each in value]
    definition = get_object_definition(type(value))
    if definition is None:
        return value
    members = ((field, getattr(value, field.python_name)) for field in definition.fields)
    return {
        field.graphql_name or camel(field.python_name): mapping_of(member)
        for field, member in members
        if member is not strawberry.UNSET
    }


def _is_ordered(field: ViewField) -> bool:
    return field.kind.ordered and field.enumeration is None


def _filter(name: str, scalar: Any, *, ordered: bool) -> type:
    operators = _ALWAYS | (_ORDERED if ordered else {})
    members = {
        operator: _optional(list[scalar] if operator in _LISTS else scalar, doc)
        for operator, doc in operators.items()
    }
    members["isNull"] = _optional(bool, "Is null (true), or is not (false).")
    doc = f"Conditions on a field of type {name}: all that is said here must be true."
    return _input(f"{name}Filter", doc, members)


def _optional(annotation: Any, doc: str) -> tuple[Any, Any]:
    field = strawberry.field(description=doc, default=strawberry.UNSET)
    return Optional[annotation], field  # noqa: UP045 - the class is not complete yet: no `|`


def _input(name: str, doc: str, members: Mapping[str, tuple[Any, Any]]) -> type:
    return _complete(type(name, (), {}), doc, members)


def _complete(cls: Any, doc: str, members: Mapping[str, tuple[Any, Any]]) -> type:
    """Fill a class whose name others may refer to already, and make it an input."""
    cls.__annotations__ = {}
    for graphql_name, (annotation, field) in members.items():
        python_name = f"{graphql_name}_"
        field.graphql_name = camel(graphql_name)
        cls.__annotations__[python_name] = annotation
        setattr(cls, python_name, field)
    made: type = strawberry.input(cls, name=cls.__name__, description=doc)
    return made


def _enum(name: str, doc: str, symbols: Mapping[str, str]) -> type[Enum]:
    values = {
        symbol: strawberry.enum_value(symbol, description=text) for symbol, text in symbols.items()
    }
    make: Any = Enum
    made: type[Enum] = strawberry.enum(make(name, values), name=name, description=doc)
    return made
