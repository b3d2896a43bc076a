"""The oracle's own Avro reader: a writer and a reader schema become a strict walk over bytes.

It stands apart from every library that the product decodes with, so that one wrong reading is not
made twice. The `avro` package parses the schemas and cross-checks a sample of what is read here
(`crosscheck.py`); its own reader is an order of magnitude too slow for a whole log and lets an
enum index that its writer never had pass as the default.

Values stay raw: a decimal is its unscaled integer, a timestamp its count of microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_ITEMS = 10_000
# One value and the offset behind it.
Read = Callable[[bytes, int], tuple[Any, int]]

_DECIMAL = "decimal"
_UNITS = frozenset({_DECIMAL, "timestamp-micros", "timestamp-millis", "timestamp-nanos"})
_PROMOTIONS = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}


class BrokenError(Exception):
    """The bytes cannot become an event; `reason` is the code of the dead letter they deserve."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def incompatible(detail: str) -> BrokenError:
    return BrokenError("INCOMPATIBLE_SCHEMA", detail)


def truncated(at: int) -> BrokenError:
    return BrokenError("TRUNCATED", f"the body ends inside the value at byte {at}")


def malformed(detail: str) -> BrokenError:
    return BrokenError("MALFORMED", detail)


def read_long(data: bytes, at: int) -> tuple[int, int]:
    return _varint(data, at, bits=64, most=10)


def read_int(data: bytes, at: int) -> tuple[int, int]:
    return _varint(data, at, bits=32, most=5)


def _varint(data: bytes, at: int, *, bits: int, most: int) -> tuple[int, int]:
    """Avro 1.12, "Binary encoding": zig-zag, seven bits a byte, the lowest first."""
    raw = shift = 0
    start = at
    while True:
        if at >= len(data):
            raise truncated(start)
        byte = data[at]
        at += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if at - start >= most:
            raise malformed(f"a varint of more than {most} bytes at byte {start}")
    if raw >> bits:
        raise malformed(f"a varint beyond {bits} bits at byte {start}")
    return (raw >> 1) ^ -(raw & 1), at


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    length, start = read_long(data, at)
    if length < 0:
        raise malformed(f"a negative length at byte {at}")
    end = start + length
    if end > len(data):
        raise truncated(at)
    return data[start:end], end


def read_string(data: bytes, at: int) -> tuple[str, int]:
    raw, end = read_bytes(data, at)
    try:
        return raw.decode("utf-8"), end
    except UnicodeDecodeError as error:
        raise malformed(f"text at byte {at} is not UTF-8") from error


def read_unscaled(data: bytes, at: int) -> tuple[int, int]:
    raw, end = read_bytes(data, at)
    return int.from_bytes(raw, "big", signed=True), end


def _read_null(_data: bytes, at: int) -> tuple[None, int]:
    return None, at


def _fixed(size: int) -> Read:
    def read(data: bytes, at: int) -> tuple[bytes, int]:
        if at + size > len(data):
            raise truncated(at)
        return data[at : at + size], at + size

    return read


def _read_boolean(data: bytes, at: int) -> tuple[bool, int]:
    raw, end = _fixed(1)(data, at)
    return raw != b"\x00", end


_PRIMITIVES: dict[str, Read] = {
    "null": _read_null,
    "boolean": _read_boolean,
    "int": read_int,
    "long": read_long,
    "float": _fixed(4),
    "double": _fixed(8),
    "bytes": read_bytes,
    "string": read_string,
}


class Walk:
    """One compilation; recursive types meet themselves again through `_known`."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], list[Read]] = {}

    def compile(self, writer: Any, reader: Any) -> Read:
        """Schema resolution of Avro 1.12; what it refuses is INCOMPATIBLE_SCHEMA."""
        if writer.type in ("union", "error_union"):
            return self._writer_union(writer, reader)
        if reader.type in ("union", "error_union"):
            return self._reader_union(writer, reader)
        _same_unit(writer, reader)
        if writer.type in _PRIMITIVES:
            return _primitive(writer, reader)
        if writer.type != reader.type:
            raise incompatible(f"{writer.type} cannot be read as {reader.type}")
        return self._complex(writer, reader)

    def _complex(self, writer: Any, reader: Any) -> Read:
        if writer.type == "array":
            return _blocks(self.compile(writer.items, reader.items))
        if writer.type == "map":
            return _blocks(_entry(self.compile(writer.values, reader.values)))
        _same_name(writer, reader)
        if writer.type == "fixed":
            if writer.size != reader.size:
                raise incompatible(f"fixed {writer.name} has another size")
            return _fixed(writer.size)
        if writer.type == "enum":
            return _enum(writer, reader)
        return self._record(writer, reader)

    def _record(self, writer: Any, reader: Any) -> Read:
        known = self._known.get((id(writer), id(reader)))
        if known is not None:
            return lambda data, at: known[0](data, at)
        cell: list[Read] = []
        self._known[id(writer), id(reader)] = cell
        steps, defaults = self._fields(writer, reader)

        def read(data: bytes, at: int) -> tuple[dict[str, Any], int]:
            record = dict(defaults)
            for name, step in steps:
                value, at = step(data, at)
                if name is not None:
                    record[name] = value
            return record, at

        cell.append(read)
        return read

    def _fields(
        self, writer: Any, reader: Any
    ) -> tuple[list[tuple[str | None, Read]], dict[str, Any]]:
        wanted = {field.name: field for field in reader.fields}
        steps: list[tuple[str | None, Read]] = []
        for field in writer.fields:
            ours = wanted.pop(field.name, None)
            name = None if ours is None else field.name
            steps.append(
                (name, self.compile(field.type, field.type if ours is None else ours.type))
            )
        for name, field in wanted.items():
            if not field.has_default:
                raise incompatible(f"the writer has no {name}, and it has no default")
        return steps, {name: _default(field) for name, field in wanted.items()}

    def _writer_union(self, writer: Any, reader: Any) -> Read:
        branches: list[Read | BrokenError] = []
        for schema in writer.schemas:
            try:
                branches.append(self.compile(schema, reader))
            except BrokenError as error:
                branches.append(error)
        if all(isinstance(branch, BrokenError) for branch in branches):
            raise incompatible("no branch of the writer's union can be read")

        def read(data: bytes, at: int) -> tuple[Any, int]:
            index, at = read_int(data, at)
            if not 0 <= index < len(branches):
                raise malformed(f"union branch {index} of {len(branches)}")
            branch = branches[index]
            if isinstance(branch, BrokenError):
                raise branch
            return branch(data, at)

        return read

    def _reader_union(self, writer: Any, reader: Any) -> Read:
        same = [branch for branch in reader.schemas if branch.type == writer.type]
        for branch in [*same, *reader.schemas]:
            try:
                return self.compile(writer, branch)
            except BrokenError:
                continue
        raise incompatible(f"{writer.type} is in no branch of the reader's union")


def _primitive(writer: Any, reader: Any) -> Read:
    if writer.type != reader.type and reader.type not in _PROMOTIONS.get(writer.type, ()):
        raise incompatible(f"{writer.type} cannot be read as {reader.type}")
    if _unit(reader) == _DECIMAL:
        return read_unscaled
    # Bytes and strings look the same on the wire; only the reader's kind is checked.
    return _PRIMITIVES[reader.type if writer.type in ("bytes", "string") else writer.type]


def _enum(writer: Any, reader: Any) -> Read:
    fallback: str | None = reader.other_props.get("default", None)
    symbols = [s if s in reader.symbols else fallback for s in writer.symbols]

    def read(data: bytes, at: int) -> tuple[str, int]:
        index, end = read_int(data, at)
        if not 0 <= index < len(symbols):
            raise malformed(f"enum index {index} of {len(symbols)}")
        symbol = symbols[index]
        if symbol is None:
            raise incompatible(f"symbol {writer.symbols[index]} has no default to become")
        return symbol, end

    return read


def _blocks(read_item: Read) -> Read:
    """Arrays, and maps as arrays of pairs: blocks of counted items, ended by an empty one."""

    def read(data: bytes, at: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        while True:
            count, at = read_long(data, at)
            if count == 0:
                return items, at
            if count < 0:
                count = -count
                size, at = read_long(data, at)
                if size < 0:
                    raise malformed(f"a block of negative size at byte {at}")
            if len(items) + count > MAX_ITEMS:
                raise BrokenError("OVER_LIMIT", f"more than {MAX_ITEMS} items at byte {at}")
            for _ in range(count):
                item, at = read_item(data, at)
                items.append(item)

    return read


def _entry(read_value: Read) -> Read:
    def read(data: bytes, at: int) -> tuple[tuple[str, Any], int]:
        key, at = read_string(data, at)
        value, at = read_value(data, at)
        return (key, value), at

    return read


def _same_name(writer: Any, reader: Any) -> None:
    aliases = {alias.rsplit(".", 1)[-1] for alias in reader.other_props.get("aliases", None) or ()}
    if writer.name != reader.name and writer.name not in aliases:
        raise incompatible(f"{writer.type} {writer.name} is not our {reader.name}")


def _unit(schema: Any) -> str | None:
    unit = schema.other_props.get("logicalType", None) or getattr(schema, "logical_type", None)
    return unit if unit in _UNITS else None


def _same_unit(writer: Any, reader: Any) -> None:
    """Equal bytes in another unit would be read as another amount or another time."""
    unit = _unit(reader)
    if unit is None:
        return
    if _unit(writer) != unit or writer.type != reader.type:
        raise incompatible(f"our {unit} was written as {_unit(writer) or writer.type}")
    if unit == _DECIMAL and _scale(writer) != _scale(reader):
        raise incompatible(f"a decimal of scale {_scale(writer)}, ours is {_scale(reader)}")


def _scale(schema: Any) -> int:
    return int(schema.other_props.get("scale", None) or getattr(schema, "scale", None) or 0)


def _default(field: Any) -> Any:
    """A default as the walk would have read it: bytes in a schema are written as ISO 8859-1."""
    value = field.default
    if isinstance(value, str) and _unit(field.type) == _DECIMAL:
        return int.from_bytes(value.encode("iso-8859-1"), "big", signed=True)
    return value
