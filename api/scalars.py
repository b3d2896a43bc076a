"""The scalars of the schema and their one text form each.

Stands apart because everything that leaves or enters the API as text goes through here: answers,
arguments, global ids and cursors. Money is never a float and always shows four decimals; a moment
is always UTC with microseconds; 64-bit numbers are strings, because clients read numbers as floats.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, NewType

import strawberry
from strawberry.types.scalar import ScalarDefinition

from api.errors import BadUserInputError

BigInt = NewType("BigInt", int)
CurrencyCode = NewType("CurrencyCode", str)

_BIG_INT_MAX: Final = 2**63 - 1
_DATE_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(?:\.(\d{1,6}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DECIMAL = re.compile(r"-?\d{1,34}(?:\.\d{1,4})?", re.ASCII)
_BIG_INT = re.compile(r"-?\d{1,19}", re.ASCII)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


def date_time_text(moment: datetime) -> str:
    """RFC 3339 in UTC, always with six decimals, so that texts sort as moments do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def date_time_of(text: str) -> datetime:
    """The moment that an RFC 3339 text names. ValueError: none, or finer than microseconds."""
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError("a DateTime is RFC 3339 text such as 2026-01-31T09:30:00.000000Z")
    day, time, fraction, offset = match.groups()
    zone = "+00:00" if offset in "Zz" else offset
    moment = datetime.fromisoformat(f"{day}T{time}.{(fraction or '0').ljust(6, '0')}{zone}")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a DateTime lies in the years 1 to 9999 in UTC") from error


def date_text(day: date) -> str:
    """ISO 8601: year, month, day."""
    return day.isoformat()


def date_of(text: str) -> date:
    """The day that an ISO 8601 text names. ValueError: it is none."""
    if _DATE.fullmatch(text) is None:
        raise ValueError("a Date is text such as 2026-01-31")
    return date.fromisoformat(text)


def decimal_text(amount: Decimal) -> str:
    """Four decimals, always, and no exponent."""
    return f"{amount:.4f}"


def decimal_of(text: str) -> Decimal:
    """The amount that a text names. ValueError: no number, or more than 34 digits or 4 decimals."""
    if _DECIMAL.fullmatch(text) is None:
        raise ValueError('a Decimal is text such as "12.5000", with at most 4 decimals')
    return Decimal(text)


def big_int_text(number: int) -> str:
    """Decimal digits."""
    return str(number)


def big_int_of(text: str) -> int:
    """The number that a text names. ValueError: it is none, or does not fit in 64 bits."""
    number = int(text) if _BIG_INT.fullmatch(text) else _BIG_INT_MAX + 1
    if not -_BIG_INT_MAX - 1 <= number <= _BIG_INT_MAX:
        raise ValueError('a BigInt is text such as "1041", of 64 bits')
    return number


def currency_of(text: str) -> str:
    """The code itself. ValueError: it is not three capital letters."""
    if _CURRENCY.fullmatch(text) is None:
        raise ValueError("a CurrencyCode is three capital letters such as EUR")
    return text


def storable(text: str) -> str:
    """The text itself. ValueError: PostgreSQL cannot hold it (NUL, half of a surrogate pair)."""
    if _UNSTORABLE.search(text):
        raise ValueError("text must not contain NUL or unpaired surrogates")
    return text


def _parser(parse: Callable[[str], Any], example: str) -> Callable[[Any], Any]:
    def parse_value(value: Any) -> Any:
        if not isinstance(value, str):
            raise BadUserInputError(f"expected a string such as {example}")
        try:
            return parse(value)
        except ValueError as error:
            raise BadUserInputError(str(error)) from error

    return parse_value


def _scalar(
    name: str, doc: str, *, write: Callable[[Any], str], read: Callable[[str], Any], spec: str
) -> ScalarDefinition:
    return strawberry.scalar(
        name=name,
        description=doc,
        serialize=write,
        parse_value=_parser(read, name),
        specified_by_url=spec,
    )


SCALARS: Final[dict[object, ScalarDefinition]] = {
    datetime: _scalar(
        "DateTime",
        "A moment in UTC, RFC 3339 with microseconds: 2026-01-31T09:30:00.000000Z.",
        write=date_time_text,
        read=date_time_of,
        spec="https://www.rfc-editor.org/rfc/rfc3339",
    ),
    date: _scalar(
        "Date",
        "A calendar day, ISO 8601: 2026-01-31.",
        write=date_text,
        read=date_of,
        spec="https://www.rfc-editor.org/rfc/rfc3339#section-5.6",
    ),
    Decimal: _scalar(
        "Decimal",
        'A decimal number as text, always with four decimals: "12.5000". Never a float.',
        write=decimal_text,
        read=decimal_of,
        spec="https://www.rfc-editor.org/rfc/rfc8259#section-6",
    ),
    BigInt: _scalar(
        "BigInt",
        'A whole number of 64 bits as text: "1041".',
        write=big_int_text,
        read=big_int_of,
        spec="https://www.rfc-editor.org/rfc/rfc7493#section-2.2",
    ),
    CurrencyCode: _scalar(
        "CurrencyCode",
        "A currency by its ISO 4217 code, three capital letters: EUR.",
        write=str,
        read=currency_of,
        spec="https://www.iso.org/iso-4217-currency-codes.html",
    ),
}
