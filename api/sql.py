"""SQL text with its bound values, put together piece by piece.

Stands apart so that a value can never become text: names come from the catalogue, values travel
beside the text to the place where it is executed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL with one `%s` per value."""

    text: str
    values: tuple[Any, ...] = ()

    def __add__(self, other: "Sql") -> "Sql":
        return Sql(self.text + other.text, self.values + other.values)


def text(words: str) -> Sql:
    """SQL without values."""
    return Sql(words.replace("%", "%%"))


def joined(separator: str, pieces: Iterable[Sql]) -> Sql:
    """Pieces with the separator between them."""
    listed = list(pieces)
    return Sql(
        separator.join(piece.text for piece in listed),
        tuple(value for piece in listed for value in piece.values),
    )


def name(identifier: str) -> str:
    """A quoted identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def column(table: str, identifier: str) -> str:
    """A column of a table, by the table's alias."""
    return f"{table}.{name(identifier)}"


TRUE: Final = Sql("true")
