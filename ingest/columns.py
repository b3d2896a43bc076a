"""Many bodies of one writer schema read at once, column by column, with numpy.

Decoding costs more than anything else that a worker does by itself, and numpy does one step of it
for thousands of bodies in the time that Python takes for a few. What is read here is read strictly,
but only the plain case is read at all: a body that is not plainly good, or takes a form that few
writers choose, is *declined*, and `ingest.decode` reads it alone and tells what it was. So this
page decides nothing about bad events; it must only never take one for good.

Nothing becomes a Python object before it is needed: the rows of a batch are made for the events
that win (`Rows.take`). Binary form: https://avro.apache.org/docs/1.12.0/specification/.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ingest.bulk import Bulk, Flags, Ints, UnfitError, Walk, boolean, walk_of
from ingest.form import INT_MAX, INT_MIN, MICROS_MAX, MICROS_MIN, EventForm, Plan
from ingest.records import Key, Row
from ingest.walk import as_long

ReaderOf = Callable[[Any, Any], Callable[[bytes], Any]]
"""(writer schema, ours or None where it is the same) -> bytes to a value, which may raise."""


class Column(Protocol):
    """The values of one column, one for each body."""

    def take(self, places: Ints) -> list[Any]:
        """The values of some bodies, in staged form."""
        ...


Read = Callable[[Bulk, Ints, Ints], tuple[Column, Ints]]
"""(bulk, which bodies, places in them) -> their column, and the places behind it."""


class _Numbers(NamedTuple):
    values: Ints

    def take(self, places: Ints) -> list[Any]:
        values: list[Any] = self.values[places].tolist()
        return values


class _Booleans(NamedTuple):
    values: Flags

    def take(self, places: Ints) -> list[Any]:
        values: list[Any] = self.values[places].tolist()
        return values


class _Symbols(NamedTuple):
    values: Ints
    symbols: Sequence[str]

    def take(self, places: Ints) -> list[Any]:
        symbols = self.symbols
        return [symbols[index] for index in self.values[places].tolist()]


class _Texts(NamedTuple):
    raw: bytes
    start: Ints
    end: Ints

    def take(self, places: Ints) -> list[Any]:
        raw = self.raw
        spans = zip(self.start[places].tolist(), self.end[places].tolist(), strict=True)
        return [raw[start:end].decode() for start, end in spans]


class _Jsons(NamedTuple):
    raw: bytes
    start: Ints
    end: Ints
    read_all: Callable[[bytes], Any]
    convert: Callable[[Any], Any]

    def take(self, places: Ints) -> list[Any]:
        if not len(places):
            return []
        raw = self.raw
        spans = zip(self.start[places].tolist(), self.end[places].tolist(), strict=True)
        # Read as one list of all of them: a call for each costs as much as what is in it.
        values = (raw[start:end] for start, end in spans)
        found = self.read_all(b"".join((as_long(len(places)), *values, as_long(0))))
        return [self.convert(value) for value in found["only"]]


class _Values(NamedTuple):
    values: Sequence[Any]

    def take(self, places: Ints) -> list[Any]:
        return [self.values[place] for place in places.tolist()]


class _Constant(NamedTuple):
    value: Any

    def take(self, places: Ints) -> list[Any]:
        return [self.value] * len(places)


class _Nullable(NamedTuple):
    """`where` is the place of a body's value in `column`, -1 for null."""

    column: Column
    where: Ints

    def take(self, places: Ints) -> list[Any]:
        where = self.where[places]
        present = where >= 0
        values = iter(self.column.take(where[present]))
        return [next(values) if there else None for there in present.tolist()]


Step = tuple[str | None, Read]
"""A field of the writer, and the column that takes it."""


class Columns:
    """How the bodies of one writer schema become rows of one view. `columns_of` makes them."""

    def __init__(
        self,
        steps: Sequence[Step],
        constants: Mapping[str, Any],
        form: EventForm,
    ) -> None:
        self._steps = steps
        self._constants = constants
        self._form = form

    def read(
        self, values: Sequence[bytes], keys: Sequence[bytes], *, header_bytes: int
    ) -> "Reading":
        """Read the bodies of framed values. `keys` are the records' keys."""
        bulk = Bulk(values, header_bytes=header_bytes)
        who = np.arange(len(values), dtype=np.int64)
        columns: dict[str, Column] = {n: _Constant(v) for n, v in self._constants.items()}
        at = bulk.start
        for name, step in self._steps:
            column, at = step(bulk, who, at)
            if name is not None:
                columns[name] = column
        bulk.refuse(who, at != bulk.end)
        form = self._form
        ordered = [columns[name] for name in form.columns]
        rows = Rows(ordered)
        _compare_keys(bulk, ordered[form.key_at], keys)
        good = np.flatnonzero(bulk.good)
        key_columns = [column.take(good) for column in ordered[: form.version_at]]
        return Reading(
            rows=rows,
            good=good.tolist(),
            keys=list(zip(*key_columns, strict=True)),
            versions=ordered[form.version_at].take(good),
            declined=np.flatnonzero(~bulk.good).tolist(),
        )


class Rows(NamedTuple):
    """The rows of the bodies that were read, made when they are asked for."""

    columns: Sequence[Column]

    def take(self, places: Sequence[int]) -> list[Row]:
        """The rows at these places. Only of bodies that were not declined."""
        wanted = np.array(places, np.int64)
        return list(zip(*(column.take(wanted) for column in self.columns), strict=True))


class Reading(NamedTuple):
    """What was read: of the `good` places their keys and versions, in order; the declined ones."""

    rows: Rows
    good: list[int]
    keys: list[Key]
    versions: list[int]
    declined: list[int]


def _compare_keys(bulk: Bulk, column: Column, keys: Sequence[bytes]) -> None:
    """Decline where the record's key is not the key in the event, to the byte."""
    if isinstance(column, _Texts):
        raw, spans = column.raw, zip(column.start.tolist(), column.end.tolist(), keys, strict=True)
        wrong = [raw[start:end] != key for start, end, key in spans]
        bulk.good &= ~np.array(wrong, np.bool_)
        return
    good = np.flatnonzero(bulk.good)
    for place, text in zip(good.tolist(), column.take(good), strict=True):
        if text is None or text.encode() != keys[place]:
            bulk.good[place] = False


# From schemas to columns.


class _Types(NamedTuple):
    """Null aside: as written and as we read it, both without logical types; and with ours."""

    written: Any
    read: Any
    meant: Any


def columns_of(writer: Any, ours: Any, form: EventForm, *, reader_of: ReaderOf) -> Columns | None:
    """How bodies of a writer schema are read in bulk; None where they can be read alone only.

    `writer` and `ours` are without logical types; those are taken from the form's own schema,
    with which the writer's is known to agree.
    """
    if not isinstance(writer, dict) or writer.get("type") != "record":
        return None
    meant = {f["name"]: f["type"] for f in form.schema["fields"]}
    read = {f["name"]: f for f in ours["fields"]}
    plans = {form.view.fields[plan.column]: plan for plan in form.plans}
    unwritten = plans.keys() - {field["name"] for field in writer["fields"]}
    if unwritten & {form.view.stream.key_field, *form.view.key, "version"}:
        return None
    steps: list[Step] = []
    try:
        for field in writer["fields"]:
            name, written = field["name"], field["type"]
            if name in plans:
                types = (written, read[name]["type"], meant[name])
                steps.append((plans[name].column, _reader(plans[name], *types, reader_of)))
            else:
                steps.append((None, _passed(walk_of(written, takes_nul=True))))
        constants = {plans[name].column: _default(plans[name], read[name]) for name in unwritten}
    except UnfitError:
        return None
    return Columns(steps, constants, form)


def _default(plan: Plan, field: Mapping[str, Any]) -> Any:
    if "default" not in field or plan.is_json:
        raise UnfitError
    value = field["default"]
    return value if value is None or plan.convert is None else plan.convert(value)


def _without_null(schema: Any) -> tuple[Any, int | None]:
    """A type, and the index of null beside it."""
    if not isinstance(schema, list):
        return schema, None
    if len(schema) != 2 or "null" not in schema:
        raise UnfitError
    null_at = schema.index("null")
    return schema[1 - null_at], null_at


def _reader(plan: Plan, written: Any, read: Any, meant: Any, reader_of: ReaderOf) -> Read:
    """How a column is read. Null aside its types must be the same, enums and lists apart."""
    inner, null_at = _without_null(written)
    ours, our_null_at = _without_null(read)
    types = _Types(inner, ours, _without_null(meant)[0])
    if null_at is not None and (our_null_at is None or plan.column == "version"):
        raise UnfitError
    base = inner["type"] if isinstance(inner, dict) else inner
    if base == "enum":
        made = _symbols(inner, ours)
    elif plan.is_json:
        made = _jsons(plan, types, reader_of)
    elif _bare(inner) != _bare(ours):
        raise UnfitError
    elif base == "string":
        made = _texts(plan)
    elif base == "bytes" and plan.digits is not None:
        made = _decimals(plan.digits)
    elif base in ("int", "long"):
        made = _numbers(plan, is_int=base == "int")
    elif base == "boolean":
        made = _booleans
    else:
        raise UnfitError
    return made if null_at is None else _nullable(made, null_at)


def _bare(schema: Any) -> Any:
    """A schema without what does not change its bytes."""
    if isinstance(schema, list):
        return [_bare(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: _bare(v) for k, v in schema.items() if k in ("type", "items", "values", "symbols")}
    if "fields" in schema:
        kept["fields"] = [(f["name"], _bare(f["type"])) for f in schema["fields"]]
    if "size" in schema:
        kept["size"] = schema["size"]
    return kept["type"] if kept.keys() == {"type"} else kept


def _passed(walk: Walk) -> Read:
    nothing = _Constant(None)
    return lambda bulk, who, at: (nothing, walk(bulk, who, at))


def _symbols(written: Any, ours: Any) -> Read:
    if not isinstance(ours, dict) or ours.get("type") != "enum":
        raise UnfitError
    symbols = list(written["symbols"])
    known = np.array([symbol in ours["symbols"] for symbol in symbols], np.bool_)
    all_known = bool(known.all())

    def read(bulk: Bulk, who: Ints, at: Ints) -> tuple[Column, Ints]:
        index, at = bulk.index(who, at, len(symbols))
        if not all_known:
            bulk.refuse(who, ~known[index])
        return _Symbols(index, symbols), at

    return read


def _texts(plan: Plan) -> Read:
    def read(bulk: Bulk, who: Ints, at: Ints) -> tuple[Column, Ints]:
        start, end = bulk.text(who, at, takes_nul=False)
        if plan.most_bytes is not None:
            bulk.refuse(who, end - start > plan.most_bytes)
        if plan.is_currency:
            _refuse_other_than_capitals(bulk, who, start, end)
        return _Texts(bulk.raw, start, end), end

    return read


def _refuse_other_than_capitals(bulk: Bulk, who: Ints, start: Ints, end: Ints) -> None:
    bulk.refuse(who, end - start != 3)
    for offset in range(3):
        letter = bulk.bytes[start + offset]
        bulk.refuse(who, (letter < ord("A")) | (letter > ord("Z")))


def _decimals(digits: int) -> Read:
    def read(bulk: Bulk, who: Ints, at: Ints) -> tuple[Column, Ints]:
        value, at = bulk.decimal(who, at, digits)
        return _Numbers(value), at

    return read


def _numbers(plan: Plan, *, is_int: bool) -> Read:
    least, most = (INT_MIN, INT_MAX) if is_int else (None, None)
    if plan.is_time:
        least, most = MICROS_MIN, MICROS_MAX
    if plan.column == "version":
        least = 1

    def read(bulk: Bulk, who: Ints, at: Ints) -> tuple[Column, Ints]:
        value, at = bulk.long(who, at)
        if least is not None:
            bulk.refuse(who, value < least)
        if most is not None:
            bulk.refuse(who, value > most)
        return _Numbers(value), at

    return read


def _booleans(bulk: Bulk, who: Ints, at: Ints) -> tuple[Column, Ints]:
    return _Booleans(bulk.bytes[at] == 1), boolean(bulk, who, at)


def _jsons(plan: Plan, types: "_Types", reader_of: ReaderOf) -> Read:
    convert = plan.convert
    assert convert is not None
    if _bare(types.written) != _bare(types.read):
        read_value = reader_of(_only(types.written), _only(types.read))
        walk = walk_of(types.written, takes_nul=False)
        return _made_at_once(walk, lambda body: convert(read_value(body)["only"]))
    # Whatever the walk lets pass can be read and converted, so that may wait.
    walk = walk_of(types.meant, takes_nul=False)
    read_all = reader_of(_only({"type": "array", "items": types.written}), None)

    def read(bulk: Bulk, who: Ints, at: Ints) -> tuple[Column, Ints]:
        end = walk(bulk, who, at)
        return _Jsons(bulk.raw, at, end, read_all, convert), end

    return read


def _only(schema: Any) -> Any:
    """A record of one field, which has the bytes of the field: fastavro parses any other type at
    the top anew for every read."""
    fields = [{"name": "only", "type": schema}]
    return {"type": "record", "name": "viewkeeper.Only", "fields": fields}


def _made_at_once(walk: Walk, made: Callable[[bytes], Any]) -> Read:
    """What is read as another schema than it was written with: that may fail for a value."""

    def read(bulk: Bulk, who: Ints, at: Ints) -> tuple[Column, Ints]:
        end = walk(bulk, who, at)
        values: list[Any] = []
        for place, body, behind in zip(who.tolist(), at.tolist(), end.tolist(), strict=True):
            try:
                values.append(made(bulk.raw[body:behind]) if bulk.good[place] else None)
            except Exception:  # noqa: BLE001 - whatever it is, reading it alone tells
                values.append(None)
                bulk.good[place] = False
        return _Values(values), end

    return read


def _nullable(made: Read, null_at: int) -> Read:
    def read(bulk: Bulk, who: Ints, at: Ints) -> tuple[Column, Ints]:
        index, at = bulk.index(who, at, 2)
        inside = np.flatnonzero(index != null_at)
        column, behind = made(bulk, who[inside], at[inside])
        at[inside] = behind
        where = np.full(len(who), -1, np.int64)
        where[inside] = np.arange(len(inside))
        return _Nullable(column, where), at

    return read
