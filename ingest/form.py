"""From a contract and a view to rows: which field fills which column, in which form, within what.

Pure. Made once per view at start; a field that no column takes and a column that no field fills
are found here, before any event is read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import orjson

from ingest.errors import DeadRecordError, Fault, Reason
from ingest.walk import MAX_ITEMS
from views.model import StreamView

MAX_KEY_BYTES = 1_000
"""Longest text that may be part of a key or an index: three of them fit an index entry of
PostgreSQL (2,704 bytes)."""

_MICROS_MIN = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
_MICROS_MAX = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z

Convert = Callable[[Any], Any]


class FormError(ValueError):
    """A view and its contract do not fit. Names the view, the column or field, and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventForm:
    """How an event of one stream becomes a row of its view.

    `row(values)` gives the event columns in column order; `check(row, key)` raises DeadRecordError
    with the first thing that is wrong. `kinds` are the staged types, as PostgreSQL names them.
    """

    view: StreamView
    schema: Mapping[str, Any]
    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    row: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    check: Callable[[tuple[Any, ...], str], None]


def form_of(view: StreamView, schema: Mapping[str, Any]) -> EventForm:
    """Fit a parsed contract to its view. FormError: they do not fit."""
    types = {field["name"]: field["type"] for field in schema["fields"]}
    for column, field in view.fields.items():
        if field not in types:
            raise FormError(
                f"view {view.name}: no field {field!r} in {view.stream.contract} fills column"
                f" {column!r}; name the field in Column(info={{'field': ...}}) or use derived()"
            )
    wanted = (*view.key, "version")
    if tuple(view.fields)[: len(wanted)] != wanted:
        raise FormError(f"view {view.name}: its first columns must be {', '.join(wanted)}")
    plans = [_plan(view, column, types[field]) for column, field in view.fields.items()]
    return EventForm(
        view=view,
        schema=schema,
        columns=tuple(view.fields),
        kinds=tuple(plan.kind for plan in plans),
        row=_row_maker(tuple(view.fields.values()), plans),
        check=_checker(view, plans),
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    column: str
    kind: str
    convert: Convert | None
    scaled_digits: int | None = None


def _plan(view: StreamView, column: str, schema: Any) -> _Plan:
    inner, nullable = _without_null(schema)
    kind, convert, digits = _form(view, column, inner)
    if convert is not None and nullable:
        convert = _unless_null(convert)
    return _Plan(column, kind, convert, digits)


def _without_null(schema: Any) -> tuple[Any, bool]:
    if not isinstance(schema, list):
        return schema, False
    rest = [branch for branch in schema if branch != "null"]
    if len(rest) != 1:
        return schema, False
    return rest[0], len(rest) < len(schema)


def _unless_null(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _form(view: StreamView, column: str, schema: Any) -> tuple[str, Convert | None, int | None]:
    logical = schema.get("logicalType") if isinstance(schema, dict) else None
    base = schema["type"] if isinstance(schema, dict) else schema
    if logical == "decimal" and base == "bytes" and schema["precision"] <= 18:
        return "int8", _unscaled, schema["precision"]
    if logical == "timestamp-micros":
        return "int8", None, None
    if base == "string" or base == "enum":
        return "text", None, None
    if base == "int" and logical is None:
        return "int4", _int_32, None
    if base in ("long", "boolean") and logical is None:
        return {"long": "int8", "boolean": "bool"}[base], None, None
    if base in ("array", "map", "record"):
        return "text", _json_maker(schema), None
    raise FormError(
        f"view {view.name}: column {column!r} has a type that no column can hold: {schema!r};"
        " use string, enum, int, long, boolean, decimal of at most 18 digits, timestamp-micros,"
        " or a list, map or record of those"
    )


def _unscaled(value: bytes | str) -> int:
    # A default comes as JSON has it: text whose characters are the bytes.
    if isinstance(value, str):
        value = value.encode("iso-8859-1")
    return int.from_bytes(value, signed=True)


def _int_32(value: int) -> int:
    if not -(1 << 31) <= value < 1 << 31:
        raise DeadRecordError(Fault(Reason.MALFORMED, "an int takes more than 32 bits"))
    return value


def _json_maker(schema: Any) -> Convert:
    shape = _json_value(schema)
    return lambda value: orjson.dumps(value if shape is None else shape(value)).decode()


def _bounded(values: Any) -> Any:
    if len(values) > MAX_ITEMS:
        raise DeadRecordError(Fault(Reason.OVER_LIMIT, f"a list of more than {MAX_ITEMS} items"))
    return values


def _json_value(schema: Any) -> Convert | None:
    """How a value inside a list, map or record looks in JSON: decimals as text, exactly."""
    inner, nullable = _without_null(schema)
    convert = _json_plain(inner)
    return _unless_null(convert) if convert is not None and nullable else convert


def _json_plain(schema: Any) -> Convert | None:
    base = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(base, dict | list):
        return _json_value(base)
    if isinstance(schema, dict) and schema.get("logicalType") == "decimal":
        return _decimal_text(schema["precision"], schema.get("scale", 0))
    if base == "int":
        return _int_32
    if base == "array":
        item = _json_value(schema["items"])
        if item is None:
            return _bounded
        return lambda values: [item(value) for value in _bounded(values)]
    if base == "map":
        entry = _json_value(schema["values"])
        if entry is None:
            return _bounded
        return lambda values: {key: entry(value) for key, value in _bounded(values).items()}
    if base == "record":
        return _json_record(schema)
    return None


def _json_record(schema: Any) -> Convert | None:
    made = {f["name"]: _json_value(f["type"]) for f in schema["fields"]}
    converts = [(name, convert) for name, convert in made.items() if convert is not None]
    if not converts:
        return None

    def convert_record(record: dict[str, Any]) -> dict[str, Any]:
        for name, convert in converts:
            record[name] = convert(record[name])
        return record

    return convert_record


def _decimal_text(precision: int, scale: int) -> Convert:
    limit, unit = 10**precision, 10**scale

    def text(value: bytes | str) -> str:
        number = _unscaled(value)
        if not -limit < number < limit:
            raise DeadRecordError(
                Fault(Reason.DECIMAL_OVERFLOW, f"a decimal has more than {precision} digits")
            )
        whole, rest = divmod(abs(number), unit)
        return f"{'-' if number < 0 else ''}{whole}.{rest:0{scale}d}" if scale else str(number)

    return text


def _row_maker(
    fields: tuple[str, ...], plans: list[_Plan]
) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    values_of = itemgetter(*fields)
    converts = [(at, plan.convert) for at, plan in enumerate(plans) if plan.convert is not None]

    def row(values: Mapping[str, Any]) -> tuple[Any, ...]:
        taken = list(values_of(values))
        for at, convert in converts:
            taken[at] = convert(taken[at])
        return tuple(taken)

    return row


def _checker(view: StreamView, plans: list[_Plan]) -> Callable[[tuple[Any, ...], str], None]:
    """One pass of cheap tests per event; only where one fails is the exact reason looked for."""
    table, columns = view.table, [plan.column for plan in plans]
    at_key = [plan.column for plan in plans].index(
        next(c for c, field in view.fields.items() if field == view.stream.key_field)
    )
    at_version = columns.index("version")
    currencies = [at for at, name in enumerate(columns) if table.c[name].info.get("currency")]
    texts = [at for at, plan in enumerate(plans) if plan.kind == "text"]
    short = [at for at in texts if getattr(table.c[columns[at]].type, "collation", None) == "C"]
    decimals = [(at, 10**p.scaled_digits) for at, p in enumerate(plans) if p.scaled_digits]
    times = [
        at for at, name in enumerate(columns) if getattr(table.c[name].type, "timezone", False)
    ]
    json_texts = [at for at, plan in enumerate(plans) if plan.kind == "text" and plan.convert]
    good_currencies: set[str] = set()

    def currency_is_good(value: str) -> bool:
        if value in good_currencies:
            return True
        good = len(value) == 3 and value.isascii() and value.isalpha() and value.isupper()
        if good:
            good_currencies.add(value)
        return good

    def has_nul(row: tuple[Any, ...]) -> bool:
        if any(row[at] is not None and "\0" in row[at] for at in texts):
            return True
        return any(
            row[at] is not None and "\\u0000" in row[at] and "\0" in _texts_of(row[at])
            for at in json_texts
        )

    def faults(row: tuple[Any, ...], key: str) -> Fault | None:
        if row[at_key] != key:
            shown = f"{row[at_key][:80]!r}"
            return Fault(
                Reason.KEY_MISMATCH, f"key is {key[:80]!r}, {view.stream.key_field} is {shown}"
            )
        if row[at_version] < 1:
            return Fault(Reason.BAD_VERSION, f"version is {row[at_version]}, must be 1 or more")
        for at in currencies:
            if not currency_is_good(row[at]):
                return Fault(
                    Reason.BAD_CURRENCY, f"{columns[at]} is {row[at][:80]!r}, not 3 capital letters"
                )
        if has_nul(row):
            return Fault(Reason.NUL_IN_TEXT, "a text holds a NUL character")
        for at in short:
            if row[at] is not None and len(row[at].encode()) > MAX_KEY_BYTES:
                return Fault(
                    Reason.KEY_TOO_LONG, f"{columns[at]} is longer than {MAX_KEY_BYTES} bytes"
                )
        for at, limit in decimals:
            if row[at] is not None and not -limit < row[at] < limit:
                return Fault(Reason.DECIMAL_OVERFLOW, f"{columns[at]} has too many digits")
        for at in times:
            if row[at] is not None and not _MICROS_MIN <= row[at] <= _MICROS_MAX:
                return Fault(Reason.BAD_TIMESTAMP, f"{columns[at]} is not in the years 1 to 9999")
        return None

    def check(row: tuple[Any, ...], key: str) -> None:
        fault = faults(row, key)
        if fault is not None:
            raise DeadRecordError(fault)

    return check


def _texts_of(text: str) -> str:
    """Every text inside a JSON value, joined."""

    def texts(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            return [t for k, v in value.items() for t in (k, *texts(v))]
        return [t for v in value for t in texts(v)] if isinstance(value, list) else []

    return "".join(texts(orjson.loads(text)))
