"""From a column of the catalogue to what the API makes of it: GraphQL type, SQL type, text form.

Stands apart so that a view's declaration names only what the table does not say already.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from sqlalchemy import JSON, TIMESTAMP, BigInteger, Boolean, Column, Date, Integer, Numeric, Text

from api.scalars import (
    BigInt,
    CurrencyCode,
    big_int_of,
    big_int_text,
    currency_of,
    date_of,
    date_text,
    date_time_of,
    date_time_text,
    decimal_of,
    decimal_text,
    storable,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What one sort of column is outside the table.

    `annotation` is what Strawberry makes the GraphQL type from, `sql` the type that a bound list
    of its values is cast to. `to_text` and `from_text` are each other's inverse; ids, cursors and
    values inside JSON columns use them. `from_text` raises ValueError.
    """

    name: str
    annotation: Any
    sql: str
    to_text: Callable[[Any], str]
    from_text: Callable[[str], Any]
    ordered: bool = True
    json_is_text: bool = True
    """Whether such a value inside a JSON column is a string."""
    sql_text: str = "{}"
    """What PostgreSQL makes the same text as `to_text` with, of a column; for DateTime in UTC."""
    shown: Literal["string", "quoted", "bare"] = "quoted"
    """How that text stands in JSON: as a string to be escaped, in quotes as it is, or bare."""
    written: str | None = None
    """A pattern of JSON tokens that stand in an answer as they are inside a JSON column; None: it
    takes more than a pattern to tell."""


def _boolean_of(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("a Boolean is true or false")
    return text == "true"


STRING: Final = Kind(
    name="String",
    annotation=str,
    sql="text",
    to_text=str,
    from_text=storable,
    shown="string",
    written=r'"[^"\\]*"',
)
CURRENCY: Final = Kind(
    name="CurrencyCode",
    annotation=CurrencyCode,
    sql="text",
    to_text=str,
    from_text=currency_of,
    shown="string",
)
INT: Final = Kind(
    name="Int",
    annotation=int,
    sql="bigint",
    to_text=big_int_text,
    from_text=big_int_of,
    json_is_text=False,
    shown="bare",
    written=r"(?:0|-?[1-9][0-9]{0,8})",
)
BIG_INT: Final = Kind(
    name="BigInt",
    annotation=BigInt,
    sql="bigint",
    to_text=big_int_text,
    from_text=big_int_of,
    json_is_text=False,
)
DECIMAL: Final = Kind(
    name="Decimal",
    annotation=Decimal,
    sql="numeric",
    to_text=decimal_text,
    from_text=decimal_of,
    sql_text="round({}, 4)",
    written=r'"-?(?:0|[1-9][0-9]{0,29})\.[0-9]{4}"',
)
FOUR_DECIMALS: Final = replace(DECIMAL, sql_text="{}")
"""A column that is declared with four: PostgreSQL's own text of it has them all."""
DATE_TIME: Final = Kind(
    name="DateTime",
    annotation=datetime,
    sql="timestamptz",
    to_text=date_time_text,
    from_text=date_time_of,
    sql_text="""to_char({}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
)
DATE: Final = Kind(name="Date", annotation=date, sql="date", to_text=date_text, from_text=date_of)
BOOLEAN: Final = Kind(
    name="Boolean",
    annotation=bool,
    sql="boolean",
    to_text=lambda value: "true" if value else "false",
    from_text=_boolean_of,
    ordered=False,
    json_is_text=False,
    shown="bare",
)

LIST: Final = Kind(
    name="List", annotation=list, sql="json", to_text=str, from_text=str, ordered=False
)
"""A JSON column that a declaration's `lists` describes; its parts have kinds of their own."""

_DECIMALS: Final = 4
_BY_TYPE: Final[tuple[tuple[type, Kind], ...]] = (
    (BigInteger, BIG_INT),
    (Integer, INT),
    (TIMESTAMP, DATE_TIME),
    (Date, DATE),
    (Boolean, BOOLEAN),
    (Text, STRING),
)


def _decimal(column: Column[Any], numeric: Numeric[Any]) -> Kind:
    """Four decimals must show all that there is."""
    if numeric.precision is None or (numeric.scale or 0) > _DECIMALS:
        raise TypeError(f"column {column} may have more than four decimals: declare its scale")
    return FOUR_DECIMALS if numeric.scale == _DECIMALS else DECIMAL


def kind_of(column: Column[Any]) -> Kind:
    """The kind of a column. TypeError: the API has no form for such a column; say which one."""
    if column.info.get("currency") or column.name == "currency":
        return CURRENCY
    if isinstance(column.type, Numeric):
        return _decimal(column, column.type)
    for sql_type, kind in _BY_TYPE:
        if isinstance(column.type, sql_type):
            return kind
    what = "declare its parts in `lists`" if isinstance(column.type, JSON) else "use another type"
    raise TypeError(f"column {column} has type {column.type!r}, which the API cannot show: {what}")
