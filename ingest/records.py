"""What flows through the worker: records as read, events as decoded. No behaviour, no I/O."""

from typing import Any, NamedTuple

from ingest.errors import Fault


class Record(NamedTuple):
    """One Kafka record as it was read. A tuple, because a worker makes tens of thousands a second.

    `timestamp_ms` is Kafka's record timestamp in milliseconds since the epoch; `leader_epoch` the
    epoch of the leader that wrote it, -1 where the broker does not say.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int
    leader_epoch: int


class Event(NamedTuple):
    """A decoded record: `row` holds the values of the view's event columns, in staged form.

    Staged form is what COPY takes: text as str, counts as int, decimals as unscaled int,
    timestamps as microseconds since the epoch, lists as JSON text. Rows of equal content are equal.
    """

    record: Record
    row: tuple[Any, ...]
    schema_id: int


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
