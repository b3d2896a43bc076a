"""Names: a column's name as GraphQL spells it."""

from functools import cache


@cache  # there are as many as columns
def camel(name: str) -> str:
    """`unit_price` -> `unitPrice`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def screaming(name: str) -> str:
    """`placed_at` -> `PLACED_AT`: the symbol of an enum."""
    return name.upper()
