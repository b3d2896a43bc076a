"""From a contract and a view to rows: which field fills which column, in which form, within what.

Pure. Made once per view at start; a field that no column takes and a column that no field fills
are found here, before any event is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ingest.errors import DeadRecordError, Fault, Reason
from ingest.records import Row
from ingest.walk import MAX_ITEMS
from views.model import StreamView

MAX_KEY_BYTES = 1_000
"""Longest text that may be part of a key or an index: two of them and more fit an index entry of
PostgreSQL (2,704 bytes)."""

MICROS_MIN = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
MICROS_MAX = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
INT_MIN, INT_MAX = -(1 << 31), (1 << 31) - 1

Convert = Callable[[Any], Any]
"""One value, from Avro's form to the staged one."""


class FormError(ValueError):
    """A view and its contract do not fit. Names the view, the column or field, and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one column is filled, and what must hold of its values.

    `kind` is the staged type, as PostgreSQL names it. `digits` bounds a decimal, `most_bytes` a
    text that is part of a key or an index.
    """

    column: str
    kind: str
    convert: Convert | None
    digits: int | None = None
    most_bytes: int | None = None
    is_json: bool = False
    is_time: bool = False
    is_currency: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EventForm:
    """How events of one stream become rows of its view.

    `columns` are the event columns in order, the key first, then the version; `key_at` is the
    place of the one that the record's key must equal. `row(values)` converts a decoded event;
    DeadRecordError: it can't be. `fault(row, key)` names the first thing that is wrong with a row.
    """

    view: StreamView
    schema: Mapping[str, Any]
    plans: tuple[Plan, ...]
    key_at: int
    row: Callable[[Mapping[str, Any]], Row]
    fault: Callable[[Row, str], Fault | None]

    @property
    def columns(self) -> tuple[str, ...]:
        """The event columns, in order."""
        return tuple(plan.column for plan in self.plans)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Their staged types."""
        return tuple(plan.kind for plan in self.plans)

    @property
    def version_at(self) -> int:
        """The place of the version: behind the key."""
        return len(self.view.key)


def form_of(view: StreamView, schema: Mapping[str, Any]) -> EventForm:
    """Fit a parsed contract to its view. FormError: they do not fit."""
    types = {field["name"]: field["type"] for field in schema["fields"]}
    for column, field in view.fields.items():
        if field not in types:
            raise FormError(
                f"view {view.name}: no field {field!r} in {view.stream.contract} fills column"
                f" {column!r}; name the field in Column(info={{'field': ...}}) or use derived()"
            )
    if schema.get("key", view.stream.key_field) != view.stream.key_field:
        raise FormError(
            f"view {view.name}: {view.stream.contract} says that its records are keyed by"
            f" {schema['key']}, and the stream's key_field is {view.stream.key_field}"
        )
    wanted = (*view.key, "version")
    if tuple(view.fields)[: len(wanted)] != wanted:
        raise FormError(f"view {view.name}: its first columns must be {', '.join(wanted)}")
    plans = tuple(_plan(view, column, types[field]) for column, field in view.fields.items())
    fields = tuple(view.fields.values())
    checks = _Checks(view, plans)
    return EventForm(
        view=view,
        schema=schema,
        plans=plans,
        key_at=fields.index(view.stream.key_field),
        row=_row_maker(fields, plans),
        fault=checks.fault,
    )


def _plan(view: StreamView, column: str, schema: Any) -> Plan:
    inner, nullable = _without_null(schema)
    logical = inner.get("logicalType") if isinstance(inner, dict) else None
    base = inner["type"] if isinstance(inner, dict) else inner
    target = view.table.c[column]

    def plan(kind: str, convert: Convert | None = None, **rules: Any) -> Plan:
        if convert is not None and nullable:
            convert = _unless_null(convert)
        return Plan(column=column, kind=kind, convert=convert, **rules)

    if logical == "decimal" and base == "bytes" and inner["precision"] <= 18:
        return plan("int8", _unscaled, digits=inner["precision"])
    if logical == "timestamp-micros":
        return plan("int8", is_time=bool(getattr(target.type, "timezone", False)))
    if base in ("string", "enum"):
        is_key = getattr(target.type, "collation", None) is not None
        return plan(
            "text",
            most_bytes=MAX_KEY_BYTES if is_key else None,
            is_currency=bool(target.info.get("currency")),
        )
    if base == "int" and logical is None:
        return plan("int4", _int_32)
    if base in ("long", "boolean") and logical is None:
        return plan("int8" if base == "long" else "bool")
    if base in ("array", "map", "record"):
        return plan("text", _json_maker(inner), is_json=True)
    raise FormError(
        f"view {view.name}: column {column!r} has a type that no column can hold: {inner!r};"
        " use string, enum, int, long, boolean, decimal of at most 18 digits, timestamp-micros,"
        " or a list, map or record of those"
    )


def _without_null(schema: Any) -> tuple[Any, bool]:
    if not isinstance(schema, list):
        return schema, False
    rest = [branch for branch in schema if branch != "null"]
    if len(rest) != 1:
        return schema, False
    return rest[0], len(rest) < len(schema)


def _unless_null(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _unscaled(value: bytes | str) -> int:
    # A default comes as JSON has it: text whose characters are the bytes.
    if isinstance(value, str):
        value = value.encode("iso-8859-1")
    return int.from_bytes(value, signed=True)


def _int_32(value: int) -> int:
    if not INT_MIN <= value <= INT_MAX:
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
    ints = [name for name, convert in made.items() if convert is _int_32]
    converts = [(name, c) for name, c in made.items() if c is not None and c is not _int_32]
    if not made or not (ints or converts):
        return None

    def convert_record(record: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in ints:
            if not INT_MIN <= record[name] <= INT_MAX:
                _int_32(record[name])
        if not converts:
            return record
        changed = dict(record)
        for name, convert in converts:
            changed[name] = convert(record[name])
        return changed

    return convert_record


def _decimal_text(precision: int, scale: int) -> Convert:
    """Decimals as text, exactly."""
    limit, unit = 10**precision, 10**scale
    form = f"%d.%0{scale}d" if scale else "%d"

    def text(value: bytes | str) -> str:
        number = _unscaled(value)
        if not -limit < number < limit:
            raise DeadRecordError(
                Fault(Reason.DECIMAL_OVERFLOW, f"a decimal has more than {precision} digits")
            )
        made = form % (divmod(abs(number), unit) if scale else number)
        return f"-{made}" if scale and number < 0 else made

    return text


def _row_maker(
    fields: tuple[str, ...], plans: Sequence[Plan]
) -> Callable[[Mapping[str, Any]], Row]:
    pairs = [(field, plan.convert) for field, plan in zip(fields, plans, strict=True)]

    def row(values: Mapping[str, Any]) -> Row:
        return tuple(
            values[field] if convert is None else convert(values[field]) for field, convert in pairs
        )

    return row


class _Checks:
    """What must hold of every row of a view. The same in bulk: `ingest.columns`."""

    def __init__(self, view: StreamView, plans: Sequence[Plan]) -> None:
        self._view = view
        self._names = names = [plan.column for plan in plans]
        self._key_at = next(
            at for at, name in enumerate(names) if view.fields[name] == view.stream.key_field
        )
        self._version_at = names.index("version")
        self._currencies = [at for at, plan in enumerate(plans) if plan.is_currency]
        self._texts = [at for at, plan in enumerate(plans) if plan.kind == "text"]
        self._jsons = [at for at, plan in enumerate(plans) if plan.is_json]
        self._short = [at for at, plan in enumerate(plans) if plan.most_bytes is not None]
        self._decimals = [(at, 10**plan.digits) for at, plan in enumerate(plans) if plan.digits]
        self._times = [at for at, plan in enumerate(plans) if plan.is_time]

    def fault(self, row: Row, key: str) -> Fault | None:
        """The first thing that is wrong with a row, in the order of `Reason`."""
        if row[self._key_at] != key:
            shown, name = f"{row[self._key_at][:80]!r}", self._view.stream.key_field
            return Fault(Reason.KEY_MISMATCH, f"key is {key[:80]!r}, {name} is {shown}")
        version = row[self._version_at]
        if version < 1:
            return Fault(Reason.BAD_VERSION, f"version is {version}, must be 1 or more")
        for at in self._currencies:
            if not _is_currency(row[at]):
                shown = f"{row[at][:80]!r}"
                return Fault(
                    Reason.BAD_CURRENCY, f"{self._names[at]} is {shown}, not 3 capital letters"
                )
        return self._text_fault(row) or self._range_fault(row)

    def _text_fault(self, row: Row) -> Fault | None:
        if any(row[at] is not None and "\0" in row[at] for at in self._texts) or any(
            row[at] is not None and "\\u0000" in row[at] and "\0" in _texts_of(row[at])
            for at in self._jsons
        ):
            return Fault(Reason.NUL_IN_TEXT, "a text holds a NUL character")
        for at in self._short:
            if row[at] is not None and len(row[at].encode()) > MAX_KEY_BYTES:
                return Fault(
                    Reason.KEY_TOO_LONG, f"{self._names[at]} is longer than {MAX_KEY_BYTES} bytes"
                )
        return None

    def _range_fault(self, row: Row) -> Fault | None:
        for at, limit in self._decimals:
            if row[at] is not None and not -limit < row[at] < limit:
                return Fault(Reason.DECIMAL_OVERFLOW, f"{self._names[at]} has too many digits")
        for at in self._times:
            if row[at] is not None and not MICROS_MIN <= row[at] <= MICROS_MAX:
                return Fault(Reason.BAD_TIMESTAMP, f"{self._names[at]} is not in years 1 to 9999")
        return None


def _is_currency(value: str) -> bool:
    return len(value) == 3 and value.isascii() and value.isalpha() and value.isupper()


def _texts_of(text: str) -> str:
    """Every text inside a JSON value, joined."""

    def texts(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            return [t for k, v in value.items() for t in (k, *texts(v))]
        return [t for v in value for t in texts(v)] if isinstance(value, list) else []

    return "".join(texts(orjson.loads(text)))
