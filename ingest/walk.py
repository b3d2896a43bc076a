"""A strict walk over one Avro body: where it ends, or what is wrong with it and at which byte.

Reads nothing into memory, so it is safe on hostile bytes: it is run on every body that the quick
reader stumbled over, before that body is decoded alone, and on every body of a schema whose lists
can hold items of no width. Binary form: https://avro.apache.org/docs/1.12.0/specification/.
"""

from collections.abc import Callable
from typing import Any

from ingest.errors import DeadRecordError, Fault, Reason

MAX_ITEMS = 10_000
"""Most items in one list or map; a larger count is over the limit whatever follows."""
MAX_DEPTH = 64
"""Most levels of a recursive schema."""
_MAX_VARINT_BYTES = 10

Walk = Callable[[bytes, int, int], int]
"""(body, position, depth) -> position behind the value. DeadRecordError names the byte."""


def end_of_body(walk: Walk, body: bytes, *, header_bytes: int) -> None:
    """Check that one value fills the body exactly.

    DeadRecordError: it ends early, something follows, or it is malformed; bytes are counted from
    the start of the record's value, so `header_bytes` in front of the body are added.
    """
    try:
        end = walk(body, 0, 0)
    except DeadRecordError as error:
        fault = error.fault
        at_byte = (fault.at_byte or 0) + header_bytes
        raise DeadRecordError(Fault(fault.reason, fault.detail, at_byte)) from None
    if end != len(body):
        raise _fault(
            Reason.TRAILING_BYTES, f"{len(body) - end} bytes follow the event", end + header_bytes
        )


def compile_walk(schema: Any, *, check_sizes: bool = True) -> Walk:
    """The walk of a parsed schema; names refer to records, enums and fixeds defined before.

    A block of a list may tell its size in bytes, so that it can be passed over unread. Whoever
    reads every block as it comes may leave that number alone, as most readers do.
    """
    return _Compiler(check_sizes=check_sizes).compile(schema)


def as_long(number: int) -> bytes:
    """A number of 0 or more as Avro writes it: zigzag, seven bits a byte, the lowest first."""
    rest, written = number * 2, bytearray()
    while rest > 0x7F:
        written.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*written, rest])


def _fault(reason: Reason, detail: str, at_byte: int) -> DeadRecordError:
    return DeadRecordError(Fault(reason, detail, at_byte))


def _read_long(body: bytes, position: int) -> tuple[int, int]:
    value, shift, start = 0, 0, position
    while True:
        if position >= len(body):
            raise _fault(Reason.TRUNCATED, "the event ends in the middle of a number", position)
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if position - start >= _MAX_VARINT_BYTES:
            raise _fault(Reason.MALFORMED, "a number takes more than 10 bytes", start)
    if value >= 1 << 64:
        raise _fault(Reason.MALFORMED, "a number takes more than 64 bits", start)
    return (value >> 1) ^ -(value & 1), position


def _long(body: bytes, position: int, _depth: int) -> int:
    return _read_long(body, position)[1]


def _int(body: bytes, position: int, _depth: int) -> int:
    value, end = _read_long(body, position)
    if not -(1 << 31) <= value < 1 << 31:
        raise _fault(Reason.MALFORMED, "an int takes more than 32 bits", position)
    return end


def _sized(body: bytes, position: int, size: int) -> int:
    if position + size > len(body):
        missing = position + size - len(body)
        raise _fault(Reason.TRUNCATED, f"the event ends {missing} bytes early", len(body))
    return position + size


def _bytes(body: bytes, position: int, _depth: int) -> int:
    length, start = _read_long(body, position)
    if length < 0:
        raise _fault(Reason.MALFORMED, f"a length of {length}", position)
    return _sized(body, start, length)


def _text(body: bytes, position: int, depth: int) -> int:
    end = _bytes(body, position, depth)
    start = _read_long(body, position)[1]
    try:
        body[start:end].decode()
    except UnicodeDecodeError as error:
        raise _fault(Reason.MALFORMED, "a text is not UTF-8", start + error.start) from None
    return end


def _boolean(body: bytes, position: int, _depth: int) -> int:
    end = _sized(body, position, 1)
    if body[position] > 1:
        raise _fault(Reason.MALFORMED, f"a boolean of {body[position]}", position)
    return end


def _null(_body: bytes, position: int, _depth: int) -> int:
    return position


def _fixed(size: int) -> Walk:
    return lambda body, position, _depth: _sized(body, position, size)


_PRIMITIVES: dict[str, Walk] = {
    "null": _null,
    "boolean": _boolean,
    "int": _int,
    "long": _long,
    "float": _fixed(4),
    "double": _fixed(8),
    "bytes": _bytes,
    "string": _text,
}


def _index(count: int, what: str) -> Callable[[bytes, int], tuple[int, int]]:
    def read(body: bytes, position: int) -> tuple[int, int]:
        index, end = _read_long(body, position)
        if not 0 <= index < count:
            raise _fault(Reason.MALFORMED, f"{what} {index} of {count}", position)
        return index, end

    return read


def _enum(symbols: int) -> Walk:
    read = _index(symbols, "symbol")
    return lambda body, position, _depth: read(body, position)[1]


def _union(branches: list[Walk]) -> Walk:
    read = _index(len(branches), "union branch")

    def walk(body: bytes, position: int, depth: int) -> int:
        index, start = read(body, position)
        return branches[index](body, start, depth)

    return walk


def _record(fields: list[Walk]) -> Walk:
    def walk(body: bytes, position: int, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise _fault(Reason.OVER_LIMIT, f"nested deeper than {MAX_DEPTH} levels", position)
        for field in fields:
            position = field(body, position, depth + 1)
        return position

    return walk


def _blocks(item: Walk, *, check_sizes: bool) -> Walk:
    def walk(body: bytes, position: int, depth: int) -> int:
        seen = 0
        while True:
            start, end = position, None
            count, position = _read_long(body, position)
            if count == 0:
                return position
            if count < 0:
                size, position = _read_long(body, position)
                count, end = -count, position + size
            seen += count
            if seen > MAX_ITEMS:
                raise _fault(Reason.OVER_LIMIT, f"a list of more than {MAX_ITEMS} items", start)
            for _ in range(count):
                position = item(body, position, depth + 1)
            if check_sizes and end is not None and position != end:
                raise _fault(Reason.MALFORMED, "a block is not of the size it tells", start)

    return walk


def _entry(value: Walk) -> Walk:
    return lambda body, position, depth: value(body, _text(body, position, depth), depth)


class _Compiler:
    def __init__(self, *, check_sizes: bool) -> None:
        self._check_sizes = check_sizes
        self._names: dict[str, Walk] = {}

    def compile(self, schema: Any, namespace: str = "") -> Walk:
        """The walk of a schema within a namespace."""
        if isinstance(schema, list):
            return _union([self.compile(branch, namespace) for branch in schema])
        if isinstance(schema, str):
            return _PRIMITIVES[schema] if schema in _PRIMITIVES else self._named(schema, namespace)
        kind = schema["type"]
        if isinstance(kind, dict | list):
            return self.compile(kind, namespace)
        if kind == "array":
            return self._blocks(self.compile(schema["items"], namespace))
        if kind == "map":
            return self._blocks(_entry(self.compile(schema["values"], namespace)))
        if kind in ("record", "enum", "fixed", "error"):
            return self._defined(schema, namespace)
        return self.compile(kind, namespace)

    def _blocks(self, item: Walk) -> Walk:
        return _blocks(item, check_sizes=self._check_sizes)

    def _named(self, name: str, namespace: str) -> Walk:
        """Looked up when it is walked: a record may hold itself."""
        names = self._names
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        return lambda body, position, depth: names[full if full in names else name](
            body, position, depth
        )

    def _defined(self, schema: Any, namespace: str) -> Walk:
        name = schema["name"]
        if "." in name:
            namespace = name.rpartition(".")[0]
        namespace = schema.get("namespace", namespace)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        if schema["type"] == "enum":
            walk = _enum(len(schema["symbols"]))
        elif schema["type"] == "fixed":
            walk = _fixed(schema["size"])
        else:
            walk = _record([self.compile(f["type"], namespace) for f in schema["fields"]])
        self._names[full] = self._names[name] = walk
        return walk
