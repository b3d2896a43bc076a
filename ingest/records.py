"""What flows through the worker: records as read, events as decoded. No behaviour, no I/O."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ingest.errors import Fault

EARLIEST_MS, LATEST_MS = -62_135_510_400_000, 253_402_128_000_000
"""0001-01-02 and 9999-12-30: what both databases and Python can show in any time zone."""


class Record(NamedTuple):
    """One Kafka record as it was read. A tuple, because a worker makes tens of thousands a second.

    `timestamp_ms` is Kafka's record timestamp in milliseconds since the epoch, brought within
    `EARLIEST_MS` and `LATEST_MS`: a producer may write any number, and no event is refused for it;
    `leader_epoch` the epoch of the leader that wrote it, -1 where the broker does not say.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int
    leader_epoch: int


Key = tuple[Any, ...]
"""The key columns of a row, in order."""
Row = tuple[Any, ...]
"""The event columns of a row, the key first, then the version, in staged form.

Staged form is what COPY takes: text as str, counts as int, decimals as unscaled int, timestamps as
microseconds since the epoch, lists as JSON text. Rows of equal content are equal.
"""


class Rows(Protocol):
    """Rows that are there, or are made when they are asked for."""

    def take(self, places: Sequence[int]) -> list[Row]:
        """The rows at these places."""
        ...


class Made(NamedTuple):
    """Rows that are there."""

    rows: Sequence[Row]

    def take(self, places: Sequence[int]) -> list[Row]:
        """The rows at these places."""
        return [self.rows[place] for place in places]


class Event(NamedTuple):
    """A decoded record. Its row is `rows` at `place`: most events of a backlog never need theirs,
    because a later one of the same key follows in the batch."""

    record: Record
    key: Key
    version: int
    schema_id: int
    rows: Rows
    place: int

    @property
    def row(self) -> Row:
        """The row of this event alone. For many, ask `rows` at once."""
        return self.rows.take((self.place,))[0]


class Removal(NamedTuple):
    """A tombstone with a good key, on a stream where tombstones hide rows."""

    record: Record
    key: str


class Dead(NamedTuple):
    """A record that becomes a dead letter, after `attempts` tries at decoding it.

    `on_record`: it was one before, and is not tried again by whoever reads the log anew.
    """

    record: Record
    fault: Fault
    schema_id: int | None
    attempts: int
    on_record: bool = False


Item = Event | Removal | Dead
