"""From a contract and a view to rows: which field fills which column, in which form, within what.

Pure. Made once per view at start; a field that no column takes and a column that no field fills
are found here, before any event is read. Events are converted and checked column by column, many
at a time; only where a check of many fails is each looked at alone, for the exact reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ingest.errors import DeadRecordError, Fault, Reason
from ingest.walk import MAX_ITEMS
from views.model import StreamView

MAX_KEY_BYTES = 1_000
"""Longest text that may be part of a key or an index: two of them and more fit an index entry of
PostgreSQL (2,704 bytes)."""

_MICROS_MIN = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
_MICROS_MAX = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
_INT_MIN, _INT_MAX = -(1 << 31), (1 << 31) - 1
_PRICES_KEPT = 20_000

Row = tuple[Any, ...]
Convert = Callable[[Any], Any]
"""One value, from Avro's form to the staged one."""
ConvertColumn = Callable[[list[Any]], list[Any]]
"""The values of one field of many events, likewise."""


class FormError(ValueError):
    """A view and its contract do not fit. Names the view, the column or field, and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventForm:
    """How events of one stream become rows of its view.

    `columns` are the event columns in order, the key first, then the version; `kinds` their staged
    types, as PostgreSQL names them. `rows(values)` converts decoded events; DeadRecordError: one
    of them can't be. `good(rows, keys)` says whether nothing is wrong with any; `fault(row, key)`
    names the first thing that is wrong with one.
    """

    view: StreamView
    schema: Mapping[str, Any]
    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: Callable[[Sequence[Mapping[str, Any]]], list[Row]]
    good: Callable[[Sequence[Row], Sequence[str]], bool]
    fault: Callable[[Row, str], Fault | None]


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
    checks = _Checks(view, plans)
    return EventForm(
        view=view,
        schema=schema,
        columns=tuple(view.fields),
        kinds=tuple(plan.kind for plan in plans),
        rows=_row_maker(tuple(view.fields.values()), plans),
        good=checks.good,
        fault=checks.fault,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    column: str
    kind: str
    convert: ConvertColumn | None
    digits: int | None = None
    is_json: bool = False


def _plan(view: StreamView, column: str, schema: Any) -> _Plan:
    inner, nullable = _without_null(schema)
    logical = inner.get("logicalType") if isinstance(inner, dict) else None
    base = inner["type"] if isinstance(inner, dict) else inner
    if logical == "decimal" and base == "bytes" and inner["precision"] <= 18:
        return _Plan(
            column, "int8", _nullable(_unscaled) if nullable else _all_unscaled, inner["precision"]
        )
    if logical == "timestamp-micros":
        return _Plan(column, "int8", None)
    if base in ("string", "enum"):
        return _Plan(column, "text", None)
    if base == "int" and logical is None:
        return _Plan(column, "int4", _nullable(_int_32))
    if base in ("long", "boolean") and logical is None:
        return _Plan(column, "int8" if base == "long" else "bool", None)
    if base in ("array", "map", "record"):
        return _Plan(column, "text", _nullable(_json_maker(inner)), is_json=True)
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


def _nullable(convert: Convert) -> ConvertColumn:
    return lambda values: [None if value is None else convert(value) for value in values]


def _all_unscaled(values: list[Any]) -> list[Any]:
    from_bytes = int.from_bytes
    try:
        return [from_bytes(value, "big", signed=True) for value in values]
    except TypeError:  # a default among them
        return [_unscaled(value) for value in values]


def _unscaled(value: bytes | str) -> int:
    # A default comes as JSON has it: text whose characters are the bytes.
    if isinstance(value, str):
        value = value.encode("iso-8859-1")
    return int.from_bytes(value, signed=True)


def _int_32(value: int) -> int:
    if not _INT_MIN <= value <= _INT_MAX:
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
            if not _INT_MIN <= record[name] <= _INT_MAX:
                _int_32(record[name])
        if not converts:
            return record
        changed = dict(record)
        for name, convert in converts:
            changed[name] = convert(record[name])
        return changed

    return convert_record


def _decimal_text(precision: int, scale: int) -> Convert:
    """Decimals as text, exactly. Prices repeat, so what was made of the last ones is kept."""
    limit = 10**precision
    kept: dict[bytes | str, str] = {}

    def text(value: bytes | str) -> str:
        known = kept.get(value)
        if known is not None:
            return known
        number = _unscaled(value)
        if not -limit < number < limit:
            raise DeadRecordError(
                Fault(Reason.DECIMAL_OVERFLOW, f"a decimal has more than {precision} digits")
            )
        digits = str(abs(number)).zfill(scale + 1)
        sign = "-" if number < 0 else ""
        made = f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else f"{sign}{digits}"
        if len(kept) >= _PRICES_KEPT:
            kept.clear()
        kept[value] = made
        return made

    return text


def _row_maker(
    fields: tuple[str, ...], plans: Sequence[_Plan]
) -> Callable[[Sequence[Mapping[str, Any]]], list[Row]]:
    pairs = [(field, plan.convert) for field, plan in zip(fields, plans, strict=True)]

    def rows(values: Sequence[Mapping[str, Any]]) -> list[Row]:
        columns = []
        for field, convert in pairs:
            column = [value[field] for value in values]
            columns.append(column if convert is None else convert(column))
        return list(zip(*columns, strict=True))

    return rows


class _Checks:
    """What must hold of every row of a view, checked for many rows at once or for one."""

    def __init__(self, view: StreamView, plans: Sequence[_Plan]) -> None:
        table, names = view.table, [plan.column for plan in plans]
        kinds = [table.c[name].type for name in names]
        self._view = view
        self._names = names
        self._key_at = next(
            at for at, name in enumerate(names) if view.fields[name] == view.stream.key_field
        )
        self._version_at = names.index("version")
        self._currencies = [at for at, n in enumerate(names) if table.c[n].info.get("currency")]
        self._texts = [at for at, p in enumerate(plans) if p.kind == "text"]
        self._jsons = [at for at, p in enumerate(plans) if p.is_json]
        self._short = [
            at for at in self._texts if getattr(kinds[at], "collation", None) is not None
        ]
        self._decimals = [(at, 10**p.digits) for at, p in enumerate(plans) if p.digits]
        self._times = [at for at, kind in enumerate(kinds) if getattr(kind, "timezone", False)]
        self._good_currencies: set[str] = set()

    def good(self, rows: Sequence[Row], keys: Sequence[str]) -> bool:
        """Whether nothing is wrong with any row; may say no where a closer look finds nothing."""
        columns = list(zip(*rows, strict=True))
        if list(columns[self._key_at]) != list(keys) or min(columns[self._version_at]) < 1:
            return False
        if not all(self._good_currencies.issuperset(columns[at]) for at in self._currencies):
            return False
        return (
            all(self._texts_are_good(columns[at], at) for at in self._texts)
            and all(_within(columns[at], 1 - limit, limit - 1) for at, limit in self._decimals)
            and all(_within(columns[at], _MICROS_MIN, _MICROS_MAX) for at in self._times)
        )

    def _texts_are_good(self, column: Sequence[str | None], at: int) -> bool:
        joined = "".join(filter(None, column))
        if "\0" in joined or (at in self._jsons and "\\u0000" in joined):
            return False
        # At most four bytes a character; a longer one is measured alone.
        return at not in self._short or max(map(len, filter(None, column)), default=0) <= (
            MAX_KEY_BYTES // 4
        )

    def fault(self, row: Row, key: str) -> Fault | None:
        """The first thing that is wrong with a row, in the order of `Reason`."""
        if row[self._key_at] != key:
            shown, name = f"{row[self._key_at][:80]!r}", self._view.stream.key_field
            return Fault(Reason.KEY_MISMATCH, f"key is {key[:80]!r}, {name} is {shown}")
        version = row[self._version_at]
        if version < 1:
            return Fault(Reason.BAD_VERSION, f"version is {version}, must be 1 or more")
        for at in self._currencies:
            if not self._currency_is_good(row[at]):
                shown = f"{row[at][:80]!r}"
                return Fault(
                    Reason.BAD_CURRENCY, f"{self._names[at]} is {shown}, not 3 capital letters"
                )
        return self._text_fault(row) or self._range_fault(row)

    def _currency_is_good(self, value: str) -> bool:
        good = len(value) == 3 and value.isascii() and value.isalpha() and value.isupper()
        if good:
            self._good_currencies.add(value)
        return good

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
            if row[at] is not None and not _MICROS_MIN <= row[at] <= _MICROS_MAX:
                return Fault(Reason.BAD_TIMESTAMP, f"{self._names[at]} is not in years 1 to 9999")
        return None


def _within(column: Sequence[int | None], least: int, most: int) -> bool:
    values = [value for value in column if value is not None]
    return not values or (least <= min(values) and max(values) <= most)


def _texts_of(text: str) -> str:
    """Every text inside a JSON value, joined."""

    def texts(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            return [t for k, v in value.items() for t in (k, *texts(v))]
        return [t for v in value for t in texts(v)] if isinstance(value, list) else []

    return "".join(texts(orjson.loads(text)))
