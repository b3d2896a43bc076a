"""Positions: per partition, the offset up to which a build's views contain the events.

Holds the table, and the text form of a position vector that people, producers and clients pass
around (`orders:0:1041,payments:2:87@5f0c21ab`). The forms follow shared words of the product:
`t:p:o` says that the event at offset `o` is in, so it holds when `next_offset > o`.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import BigInteger, Boolean, Column, Integer, Table, Text, text

from views.model import BUILD, HOT, Key, Timestamp

Partition = tuple[str, int]
"""A topic and a partition of it."""

_ZERO = text("0")


def _counter(name: str, doc: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=_ZERO, doc=doc)


TABLE = Table(
    "positions",
    BUILD,
    Column("topic", Key, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column(
        "next_offset",
        BigInteger,
        nullable=False,
        server_default=_ZERO,
        doc="The next offset to read: every event below it is in the views.",
    ),
    Column("end_offset", BigInteger, doc="The high watermark when the broker was last asked."),
    Column("observed_at", Timestamp, doc="Database time just before that question was sent."),
    Column("cluster_id", Text, doc="Id of the Kafka cluster that the offsets belong to."),
    Column("topic_id", Text, doc="Id of the topic: another one after it is deleted and recreated."),
    Column("leader_epoch", Integer, doc="Highest leader epoch seen on a record that was applied."),
    Column(
        "owner_epoch",
        BigInteger,
        nullable=False,
        server_default=_ZERO,
        doc="Drawn anew by each worker that takes the partition over; only the newest may write.",
    ),
    Column("owner", Text, doc="Host and process of the worker that drew the epoch, for people."),
    Column("last_event_at", Timestamp, doc="Kafka timestamp of the last record that was applied."),
    Column(
        "complete_as_of",
        Timestamp,
        doc="Every event that was acknowledged before this database time is in.",
    ),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("stopped_reason", Text, doc="Why no worker applies this partition; null: it may."),
    Column(
        "loss_accepted_until",
        BigInteger,
        doc="Below this offset no number of dead letters stops the partition: an operator said so.",
    ),
    _counter("applied", "Events that changed a row."),
    _counter("superseded", "Events older than the row they met."),
    _counter("duplicates", "Events whose version and content the row had already."),
    _counter("tombstones", "Null values that hide a row."),
    _counter("dead", "Records that became dead letters."),
    postgresql_with=HOT,
)

APPLIED_DEAD_LETTERS = Table(
    "applied_dead_letters",
    BUILD,
    Column("topic_id", Key, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True, doc="A redriven record that this build holds."),
)

TOMBSTONES = Table(
    "tombstones",
    BUILD,
    Column("topic", Key, primary_key=True),
    Column("key", Key, primary_key=True, doc="Key of the record."),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, nullable=False, doc="Offset of the key's last tombstone there."),
    Column("recorded_at", Timestamp, nullable=False, doc="Kafka timestamp of that tombstone."),
)


class BadPositionError(ValueError):
    """A text is not a position vector. The message says which part, and what one looks like."""


@dataclass(frozen=True, slots=True)
class PositionVector:
    """Per partition the next offset to read; a partition that is not named is at 0.

    Offsets here are *next* offsets. The text form names the last offset that is in, one less.
    """

    next_offsets: Mapping[Partition, int]
    generation: str | None = None

    def __str__(self) -> str:
        """The text form, partitions in order, those at 0 left out."""
        named = sorted((tp, n) for tp, n in self.next_offsets.items() if n > 0)
        body = ",".join(f"{topic}:{partition}:{n - 1}" for (topic, partition), n in named)
        return f"{body}@{self.generation}" if self.generation is not None and body else body

    def includes(self, other: "PositionVector") -> bool:
        """Whether every event that the other contains is in this one too."""
        return all(self.next_offsets.get(tp, 0) >= n for tp, n in other.next_offsets.items())

    def topics(self) -> tuple[str, ...]:
        """The topics named, in order."""
        return tuple(sorted({topic for (topic, _), n in self.next_offsets.items() if n > 0}))


_PART = re.compile(r"(?P<topic>[A-Za-z0-9._-]{1,249}):(?P<partition>\d{1,9}):(?P<offset>\d{1,18})")
_GENERATION = re.compile(r"[0-9a-f]{8}")


def parse_position(token: str) -> PositionVector:
    """Read the text form of a position vector.

    The empty text is the vector that contains nothing. BadPositionError: a part is not
    `topic:partition:offset`, a partition is named twice, or the generation is not 8 hex digits.
    """
    body, at, generation = token.strip().partition("@")
    if at and not _GENERATION.fullmatch(generation):
        raise BadPositionError(f"position {token[:80]!r}: after '@' come 8 hexadecimal digits")
    offsets: dict[Partition, int] = {}
    for part in body.split(",") if body else []:
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise BadPositionError(f"position part {part[:80]!r} is not topic:partition:offset")
        tp = (match["topic"], int(match["partition"]))
        if tp in offsets:
            raise BadPositionError(f"position names {tp[0]}:{tp[1]} twice")
        offsets[tp] = int(match["offset"]) + 1
    return PositionVector(offsets, generation if at else None)


def generation_of(cluster_id: str, topic_ids: Iterable[tuple[str, str]]) -> str:
    """What ties a position to one life of its topics: a hash of cluster id and (topic, id) pairs.

    A deleted and recreated topic, or another cluster, gives another generation.
    """
    text_form = "\n".join([cluster_id, *(f"{t}={i}" for t, i in sorted(set(topic_ids)))])
    return hashlib.sha256(text_form.encode()).hexdigest()[:8]
