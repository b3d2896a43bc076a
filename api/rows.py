"""A row as the source of a GraphQL object: what each field of it shows.

Stands apart so that a view's type needs no resolvers: names of fields are names of columns, and
only the id, the provenance and JSON columns need a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.declare import ListOf, ViewType
from api.kinds import kind_of
from api.opaque import global_id

SOURCE_FIELDS = ("topic", "partition", "offset", "schema_id")


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row of a view."""

    view_type: ViewType
    values: Mapping[str, Any]

    def member(self, name: str) -> Any:
        """What the field of that (Python) name holds."""
        if name == "id":
            return global_id(self.view_type, self.key)
        if name == "source":
            return {each: self.values[f"source_{each}"] for each in SOURCE_FIELDS}
        list_of = self.view_type.fields[name].list_of
        return _items(list_of, self.values[name]) if list_of else self.values[name]

    @property
    def key(self) -> tuple[Any, ...]:
        """The values that name the row."""
        return tuple(self.values[name] for name in self.view_type.key)


def member(source: Any, name: str) -> Any:
    """The default resolver of the schema."""
    if isinstance(source, Row):
        return source.member(name)
    if isinstance(source, Mapping):
        return source[name]
    return getattr(source, name)


def _items(list_of: ListOf, listed: list[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    if listed is None:
        return None
    kinds = {part.name: kind_of(part) for part in list_of.parts}
    return [
        {
            name: kind.from_text(each[name])
            if kind.json_is_text and each[name] is not None
            else each[name]
            for name, kind in kinds.items()
        }
        for each in listed
    ]
