"""Looking into broken bytes: as many fields as can be read, and the byte where that ends.

Stands apart from the strict decoder of `ingest`, which rejects a value whole. This one is for the
person who wants to know what a dead letter was meant to be; nothing is ever applied from it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from schemas.encode import HEADER, MAGIC

MAX_ITEMS = 1_000
"""More items of one list than a person reads: a count beyond it is taken for nonsense."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SUBSECONDS = {"timestamp-millis": 1_000, "timestamp-micros": 1}


@dataclass(frozen=True, slots=True)
class Glance:
    """What could be read: fields in order, and where and why it ended (None: whole)."""

    fields: tuple[tuple[str, object], ...]
    stopped_at_byte: int | None = None
    reason: str | None = None


class _StoppedError(Exception):
    """The bytes do not go on as the schema says."""


def framed_schema_id(value: bytes | None) -> int | None:
    """The schema id in the frame of a value, or None where there is no such frame."""
    if value is None or len(value) < HEADER.size or value[0] != MAGIC:
        return None
    return int(HEADER.unpack_from(value)[1])


def glance(value: bytes, writer_schema: dict[str, Any]) -> Glance:
    """Read a framed value by the schema that it was written with, as far as it goes."""
    reader = _Reader(value, HEADER.size)
    fields: list[tuple[str, object]] = []
    try:
        for field in reader.record_fields(writer_schema):
            fields.append(field)
        reader.expect_end()
    except (_StoppedError, UnicodeDecodeError, ArithmeticError, KeyError, RecursionError) as error:
        return Glance(tuple(fields), reader.at, str(error))
    return Glance(tuple(fields))


class _Reader:
    """A cursor over the bytes. Named types are remembered as they are met."""

    def __init__(self, value: bytes, at: int) -> None:
        self._value = value
        self._named: dict[str, Any] = {}
        self.at = at

    def record_fields(self, record: dict[str, Any]) -> Iterator[tuple[str, object]]:
        """Name and content of each field."""
        self._remember(record)
        for field in record["fields"]:
            yield field["name"], self._read(field["type"])

    def expect_end(self) -> None:
        """A whole value ends with its last field."""
        if self.at != len(self._value):
            raise _StoppedError(f"{len(self._value) - self.at} bytes are left over")

    def _read(self, kind: Any) -> object:
        if isinstance(kind, list):
            return self._read(self._chosen(kind))
        if isinstance(kind, str):
            return self._named_or_primitive(kind)
        match kind["type"]:
            case "record":
                return dict(self.record_fields(kind))
            case "enum":
                self._remember(kind)
                return self._symbol(kind["symbols"])
            case "array":
                return [self._read(kind["items"]) for _ in self._items()]
            case "map":
                return {str(self._text()): self._read(kind["values"]) for _ in self._items()}
            case "fixed":
                self._remember(kind)
                return _logical(kind, self._take(kind["size"]))
            case inner:
                return _logical(kind, self._read(inner))

    def _named_or_primitive(self, kind: str) -> object:
        match kind:
            case "null":
                return None
            case "boolean":
                return self._take(1) != b"\x00"
            case "int" | "long":
                return self._number()
            case "float":
                return struct.unpack("<f", self._take(4))[0]
            case "double":
                return struct.unpack("<d", self._take(8))[0]
            case "bytes":
                return self._take(self._length())
            case "string":
                return self._text()
            case name:
                return self._read(self._named[name])

    def _remember(self, kind: dict[str, Any]) -> None:
        name = kind["name"]
        self._named[name] = kind
        self._named[f"{kind.get('namespace', '')}.{name}"] = kind

    def _chosen(self, union: list[Any]) -> Any:
        index = self._number()
        if not 0 <= index < len(union):
            raise _StoppedError(f"branch {index} of a union of {len(union)}")
        return union[index]

    def _symbol(self, symbols: list[str]) -> str:
        index = self._number()
        if not 0 <= index < len(symbols):
            raise _StoppedError(f"symbol {index} of an enum of {len(symbols)}")
        return symbols[index]

    def _items(self) -> Iterator[None]:
        while count := self._number():
            if count < 0:  # a block that also says how many bytes it has
                count = -count
                self._number()
            if count > MAX_ITEMS:
                raise _StoppedError(f"a list of {count} items")
            for _ in range(count):
                yield

    def _length(self) -> int:
        length = self._number()
        if length < 0:
            raise _StoppedError(f"a length of {length} bytes")
        return length

    def _text(self) -> str:
        return self._take(self._length()).decode()

    def _take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self._value):
            raise _StoppedError(f"{length} bytes wanted, {len(self._value) - self.at} there")
        taken = self._value[self.at : end]
        self.at = end
        return taken

    def _number(self) -> int:
        """A zig-zag number of at most ten bytes."""
        raw = 0
        for shift in range(0, 70, 7):
            byte = self._take(1)[0]
            raw |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (raw >> 1) ^ -(raw & 1)
        raise _StoppedError("a number of more than ten bytes")


def _logical(kind: dict[str, Any], content: object) -> object:
    """Amounts and times as people read them; everything else as it is."""
    logical = kind.get("logicalType")
    if logical == "decimal" and isinstance(content, bytes):
        unscaled = int.from_bytes(content, "big", signed=True)
        return str(Decimal(unscaled).scaleb(-int(kind.get("scale", 0))))
    if isinstance(logical, str) and logical in _SUBSECONDS and isinstance(content, int):
        return (_EPOCH + timedelta(microseconds=content * _SUBSECONDS[logical])).isoformat()
    return content
