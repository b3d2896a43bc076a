"""The records of a few keys, from all partitions of all topics, up to a position.

The log has no index by key, so it is read whole; decoding is what costs, and only the wanted
records are decoded.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

from ingest.consume import Log
from ingest.errors import RefusedError
from ingest.records import Record
from ingest.walk import as_long
from rebuild.builder import StoppedError
from views.positions import Partition

AT_ONCE: Final = 5_000
_POLL_S: Final = 0.2
_SILENCE_S: Final = 30.0
Wanted = Callable[[Record], bool]
Tell = Callable[[int, int | None], None]


class Scan:
    """Reads a log once, from its beginning on; `go_to` may be called again to read further."""

    def __init__(
        self,
        log: Log,
        starts: Mapping[Partition, int],
        wanted: Wanted,
        stop: threading.Event,
        *,
        tell: Tell | None = None,
    ) -> None:
        self._log = log
        self._wanted = wanted
        self._stop = stop
        self._tell = tell
        self._begins = sum(starts.values())
        self._next = dict(starts)
        self.records: list[Record] = []
        log.start(starts)

    def go_to(self, until: Mapping[Partition, int]) -> None:
        """Read up to a position. What was read behind it is kept, and left out by `below`.

        RefusedError: the broker gave nothing for half a minute. StoppedError: `stop` was set.
        """
        if not self.read_on(until, _SILENCE_S):
            raise RefusedError("the broker gave no records for half a minute: try again")

    def read_on(self, until: Mapping[Partition, int], silence_s: float) -> bool:
        """Read up to a position; False: the broker gave nothing for so long before it."""
        heard_at = time.monotonic()
        while not self._reached(until):
            if self._stop.is_set():
                raise StoppedError
            found = self._log.poll(AT_ONCE, _POLL_S)
            for record in found:
                self._next[record.topic, record.partition] = record.offset + 1
                if self._wanted(record):
                    self.records.append(record)
            passed = self._log.positions(self._next)
            moved = {p: n for p, n in passed.items() if n > self._next.get(p, 0)}
            self._next.update(moved)
            if found or moved:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > silence_s:
                return False
            if self._tell is not None:
                self._tell(sum(self._next.values()) - self._begins, self._length(until))
        return True

    def position(self, partition: Partition) -> int:
        """The next offset of a partition that would be read."""
        return self._next[partition]

    def _length(self, until: Mapping[Partition, int]) -> int:
        return sum(until.values()) - self._begins

    def _reached(self, until: Mapping[Partition, int]) -> bool:
        return all(self._next.get(p, 0) >= n for p, n in until.items())

    def below(self, until: Mapping[Partition, int]) -> list[Record]:
        """The wanted records before a position, per partition in their order."""
        found = [r for r in self.records if r.offset < until.get((r.topic, r.partition), 0)]
        return sorted(found, key=lambda r: (r.topic, r.partition, r.offset))


def of_keys(keys: Collection[str]) -> Wanted:
    """Records that carry one of these keys."""
    encoded = {key.encode() for key in keys}
    return lambda record: record.key in encoded


def mentioning(text: str) -> Wanted:
    """Records whose value holds a text as Avro writes one: its length, then its bytes.

    Those that hold it whole in a field are among them; others may be, by chance.
    """
    encoded = text.encode()
    needle = as_long(len(encoded)) + encoded
    return lambda record: record.value is not None and needle in record.value
