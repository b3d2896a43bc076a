"""Many Avro bodies side by side: each call reads one value of each of them, with numpy.

A value that is not plainly good marks its body as not good, and reading goes on: whoever asks at
the end reads those again, alone. Nothing here raises for what is in a body.
Binary form: https://avro.apache.org/docs/1.12.0/specification/.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.form import INT_MAX, INT_MIN

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_BEFORE, _BEHIND = bytes(8), bytes(16)
_CONTINUES = np.uint64(0x8080808080808080)
_SEVENS = np.uint64(0x7F7F7F7F7F7F7F7F)
_PAIRS = (np.uint64(0x007F007F007F007F), np.uint64(0x7F007F007F007F00), np.uint64(1))
_QUADS = (np.uint64(0x00003FFF00003FFF), np.uint64(0x3FFF00003FFF0000), np.uint64(2))
_HALVES = (np.uint64(0x000000000FFFFFFF), np.uint64(0x0FFFFFFF00000000), np.uint64(4))
_ONE = np.uint64(1)
_ONES = np.uint64(0x0101010101010101)
_TOP_BITS = np.array([0x8080808080808080 & ((1 << 8 * size) - 1) for size in range(9)], np.uint64)
"""The top bits of the first so many bytes."""
_MOST_DIGITS = 18
"""Digits that eight bytes hold, whatever they are."""
MOST_ITEMS = 50
"""Longest list that is walked here: each turn takes the next item of every list."""


class Bulk:
    """The bodies, joined, and which of them are still good.

    `start` and `end` are places in `raw`, per body. Reads may run past an end, never past the
    padding; whether each body ends where it should is asked once, at the end.
    """

    def __init__(self, values: Sequence[bytes], *, header_bytes: int) -> None:
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        self.raw = b"".join((_BEFORE, *values, _BEHIND))
        self.end: Ints = np.cumsum(sizes) + len(_BEFORE)
        self.start = self.end - sizes + header_bytes
        self.good: Flags = np.ones(len(values), np.bool_)
        self.bytes = np.frombuffer(self.raw, np.uint8)
        words = len(self.raw) - 7
        self._little: npt.NDArray[np.uint64] = np.ndarray((words,), "<u8", self.raw, strides=(1,))
        self._big: npt.NDArray[np.uint64] = np.ndarray((words,), ">u8", self.raw, strides=(1,))
        self._limit = len(self.raw) - len(_BEHIND) + 1

    def refuse(self, who: Ints, wrong: Flags) -> None:
        """Decline those that are wrong."""
        if wrong.any():
            self.good[who[wrong]] = False

    def passed(self, at: Ints, size: int) -> Ints:
        """Places so many bytes further."""
        return np.minimum(at + size, self._limit)

    def long(self, who: Ints, at: Ints) -> tuple[Ints, Ints]:
        """A number of at most eight bytes from each, and the places behind them."""
        first = self.bytes[at]
        if not (first & 0x80).any():
            value = first.astype(np.int64)
            return (value >> 1) ^ -(value & 1), self.passed(at, 1)
        word = self._little[at]
        stop = ~word & _CONTINUES
        last = stop & (~stop + _ONE)
        self.refuse(who, stop == 0)
        used = last | (last - _ONE)
        # Seven bits of each byte, drawn together in three steps.
        word = word & used & _SEVENS
        for keep, move, by in (_PAIRS, _QUADS, _HALVES):
            word = (word & keep) | ((word & move) >> by)
        value = word.astype(np.int64)
        behind = at + (np.bitwise_count(used) >> 3)
        return (value >> 1) ^ -(value & 1), np.minimum(behind, self._limit)

    def sized(self, who: Ints, at: Ints) -> tuple[Ints, Ints]:
        """Where the content of each length-prefixed value begins and ends."""
        size, at = self.long(who, at)
        behind = at + size
        wrong = (size < 0) | (behind > self.end[who])
        if wrong.any():
            self.refuse(who, wrong)
            behind = np.where(wrong, at, behind)
        return at, behind

    def index(self, who: Ints, at: Ints, count: int) -> tuple[Ints, Ints]:
        """An index below `count` from each; 0 where it is another."""
        index, at = self.long(who, at)
        wrong = (index < 0) | (index >= count)
        if wrong.any():
            self.refuse(who, wrong)
            index = np.where(wrong, 0, index)
        return index, at

    def text(self, who: Ints, at: Ints, *, takes_nul: bool) -> tuple[Ints, Ints]:
        """Where each text begins and ends, checked to be UTF-8."""
        start, end = self.sized(who, at)
        for place in np.flatnonzero(self._odd(start, end)):
            if not _is_text(self.raw[start[place] : end[place]], takes_nul=takes_nul):
                self.good[who[place]] = False
        return start, end

    def _odd(self, start: Ints, end: Ints) -> Flags:
        """Which texts hold a NUL or a byte beyond ASCII: the others need no look. Eight bytes of
        each at a time."""
        odd = np.zeros(len(start), np.bool_)
        which, at, left = np.arange(len(start)), start, end - start
        while len(which):
            word = self._little[at]
            # A byte less one: its top bit is set where it was NUL. That may borrow from bytes that
            # follow, but then the text is odd anyhow.
            found = ((word - _ONES) | word) & _TOP_BITS[np.minimum(left, 8)]
            if found.any():
                odd[which[found != 0]] = True
            further = left > 8
            if not further.all():  # most columns hold texts of one length
                which, at, left = which[further], at[further], left[further]
            at, left = at + 8, left - 8
        return odd

    def decimal(self, who: Ints, at: Ints, digits: int) -> tuple[Ints, Ints]:
        """A number in two's complement, big-endian, of one to eight bytes and so many digits."""
        start, end = self.sized(who, at)
        size = end - start
        wrong = (size < 1) | (size > 8)
        if wrong.any():
            self.refuse(who, wrong)
            size = np.clip(size, 1, 8)
        spare = 64 - 8 * size
        word = self._big[end - 8].astype(np.int64) << spare
        value: Ints = word >> spare
        limit = 10**digits
        self.refuse(who, (value <= -limit) | (value >= limit))
        return value, end


def _is_text(content: bytes, *, takes_nul: bool) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return takes_nul or b"\0" not in content


Walk = Callable[[Bulk, Ints, Ints], Ints]
"""(bulk, which bodies, places in them) -> the places behind the value."""


class UnfitError(Exception):
    """A schema has something that is only read alone."""


def walk_of(schema: Any, *, takes_nul: bool) -> Walk:
    """The walk of a schema; with `takes_nul` its texts may hold NUL. UnfitError: there is none.

    A decimal that has its logical type must keep to its precision.
    """
    if isinstance(schema, list):
        return _union([walk_of(branch, takes_nul=takes_nul) for branch in schema])
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(kind, dict | list):
        return walk_of(kind, takes_nul=takes_nul)
    if kind in _WIDTHS:
        width = _WIDTHS[kind]
        return lambda bulk, _who, at: bulk.passed(at, width)
    if kind == "bytes":
        return _bytes(schema)
    if kind == "enum":
        count = len(schema["symbols"])
        return lambda bulk, who, at: bulk.index(who, at, count)[1]
    if kind == "record":
        return _record([walk_of(f["type"], takes_nul=takes_nul) for f in schema["fields"]])
    if kind == "array":
        return _list(walk_of(schema["items"], takes_nul=takes_nul))
    if kind == "map":
        value = walk_of(schema["values"], takes_nul=takes_nul)
        return _list(_record([walk_of("string", takes_nul=takes_nul), value]))
    if kind == "string":
        return lambda bulk, who, at: bulk.text(who, at, takes_nul=takes_nul)[1]
    if kind in _SCALARS:
        return _SCALARS[kind]
    raise UnfitError  # a fixed, or the name of a type that is defined elsewhere


def boolean(bulk: Bulk, who: Ints, at: Ints) -> Ints:
    bulk.refuse(who, bulk.bytes[at] > 1)
    return bulk.passed(at, 1)


def _int(bulk: Bulk, who: Ints, at: Ints) -> Ints:
    value, at = bulk.long(who, at)
    bulk.refuse(who, (value < INT_MIN) | (value > INT_MAX))
    return at


def _long(bulk: Bulk, who: Ints, at: Ints) -> Ints:
    return bulk.long(who, at)[1]


_WIDTHS = {"null": 0, "float": 4, "double": 8}
_SCALARS: dict[str, Walk] = {"boolean": boolean, "int": _int, "long": _long}


def _bytes(schema: Any) -> Walk:
    if isinstance(schema, dict) and schema.get("logicalType") == "decimal":
        digits = min(schema["precision"], _MOST_DIGITS)
        return lambda bulk, who, at: bulk.decimal(who, at, digits)[1]
    return lambda bulk, who, at: bulk.sized(who, at)[1]


def _record(fields: Sequence[Walk]) -> Walk:
    def walk(bulk: Bulk, who: Ints, at: Ints) -> Ints:
        for field in fields:
            at = field(bulk, who, at)
        return at

    return walk


def _union(branches: Sequence[Walk]) -> Walk:
    def walk(bulk: Bulk, who: Ints, at: Ints) -> Ints:
        index, at = bulk.index(who, at, len(branches))
        for number, branch in enumerate(branches):
            inside = np.flatnonzero(index == number)
            if inside.size:
                at[inside] = branch(bulk, who[inside], at[inside])
        return at

    return walk


def _list(item: Walk) -> Walk:
    """A list of one block, as nearly all writers make it: its count, its items, and a 0."""

    def walk(bulk: Bulk, who: Ints, at: Ints) -> Ints:
        count, at = bulk.long(who, at)
        wrong = (count < 0) | (count > MOST_ITEMS)
        if wrong.any():
            bulk.refuse(who, wrong)
            count = np.where(wrong, 0, count)
        filled = inside = np.flatnonzero(count)
        turn = 0
        while inside.size:
            at[inside] = item(bulk, who[inside], at[inside])
            turn += 1
            inside = inside[count[inside] > turn]
        ends = at[filled]
        bulk.refuse(who[filled], bulk.bytes[ends] != 0)
        at[filled] = bulk.passed(ends, 1)
        return at

    return walk
