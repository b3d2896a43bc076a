"""What an operator accepts about a partition that the worker refuses to read on.

Each call is one transaction: it checks that there is what is to be accepted, changes the position
row of the live build under a new epoch, so that whoever owned the partition is fenced, and records
the decision (`ingest.decisions`). Stands apart from `operate`, which never moves a position.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from ingest.claim import BrokerView, refusal
from ingest.operate import UnknownThingError, live_build
from ingest.write import CHANNEL
from views import CATALOGUE
from views.positions import Partition, PositionVector

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was accepted about the offsets from `from_offset` up to, not including, `to_offset`."""

    build: str
    topic: str
    partition: int
    decision: str
    from_offset: int
    to_offset: int
    decided_at: datetime
    decided_by: str

    @property
    def offsets(self) -> int:
        """How many offsets the decision is about; the most events that it can have cost."""
        return self.to_offset - self.from_offset


@dataclass(frozen=True, slots=True)
class _Place:
    connection: Connection
    build: str
    partition: Partition
    next_offset: int
    cluster_id: str | None
    topic_id: str | None

    def expect_same_log(self, broker: BrokerView) -> None:
        """Offsets of another cluster, or of a topic that was made anew, can't be accepted."""
        row = {
            "next_offset": self.next_offset,
            "cluster_id": self.cluster_id,
            "topic_id": self.topic_id,
        }
        same = replace(broker, low=0, high=max(broker.high, self.next_offset))
        reason = refusal(self.partition, row, same)
        if reason is not None:
            raise UnknownThingError(reason)

    @property
    def name(self) -> str:
        return f"{self.partition[0]}:{self.partition[1]}"

    def change(self, sets: str, **values: object) -> None:
        self.connection.execute(
            f"UPDATE {self.build}.positions SET {sets}, stopped_reason = NULL,"
            " owner_epoch = owner_epoch + 1, owner = NULL"
            " WHERE topic = %(topic)s AND partition = %(partition)s",
            {"topic": self.partition[0], "partition": self.partition[1], **values},
        )

    def decided(self, decision: str, start: int, end: int, *, who: str) -> Decision:
        with self.connection.cursor(row_factory=class_row(Decision)) as cursor:
            made = cursor.execute(
                "INSERT INTO ingest.decisions"
                " (build, topic, partition, decision, from_offset, to_offset, decided_by)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING build, topic, partition, decision,"
                " from_offset, to_offset, decided_at, decided_by",
                (self.build, *self.partition, decision, start, end, who),
            ).fetchone()
        assert made is not None
        return made


def accept_gap(
    connection: Connection, partition: Partition, *, broker: BrokerView, who: str
) -> Decision:
    """Go on at the low watermark: the events before it are gone from the log and stay out.

    UnknownThingError: nothing is missing before the position, or the log is not this position's.
    """
    low = broker.low
    with _locked(connection, partition) as place:
        place.expect_same_log(broker)
        if place.next_offset >= low:
            raise UnknownThingError(
                f"{place.name} has no gap: the log starts at {low}, and {place.next_offset} is the"
                " next to read"
            )
        place.change("next_offset = %(low)s", low=low)
        payload = f"{place.build} {PositionVector({partition: low})}"
        connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))
        return place.decided("accept-gap", place.next_offset, low, who=who)


def accept_log(
    connection: Connection, partition: Partition, *, broker: BrokerView, who: str
) -> Decision:
    """Go on with a log that was cut or replaced by an older copy, from its end at most.

    Rows that the lost events made stay, at their versions. What was noted of offsets that will be
    given out again is taken off them: tombstones and rows count as older than what comes, dead
    letters as those of an earlier log. UnknownThingError: the log is another topic's.
    """
    with _locked(connection, partition) as place:
        place.expect_same_log(broker)
        start = min(place.next_offset, broker.high)
        place.change("next_offset = %(start)s, leader_epoch = NULL", start=start)
        if start < place.next_offset:
            _take_off(place, start)
        return place.decided("accept-log", start, place.next_offset, who=who)


def accept_loss(connection: Connection, partition: Partition, *, until: int, who: str) -> Decision:
    """Let the worker go on; below `until` no number of dead letters stops it again.

    UnknownThingError: the position is there or further already.
    """
    with _locked(connection, partition) as place:
        if until <= place.next_offset:
            raise UnknownThingError(
                f"{place.name} is at {place.next_offset} already: name an offset behind it"
            )
        place.change("loss_accepted_until = %(until)s, paused = false", until=until)
        return place.decided("accept-loss", place.next_offset, until, who=who)


def decisions(connection: Connection, *, limit: int) -> list[Decision]:
    """What was decided, newest first."""
    with connection.cursor(row_factory=class_row(Decision)) as cursor:
        return cursor.execute(
            "SELECT build, topic, partition, decision, from_offset, to_offset, decided_at,"
            " decided_by FROM ingest.decisions ORDER BY id DESC LIMIT %s",
            (limit,),
        ).fetchall()


@contextmanager
def _locked(connection: Connection, partition: Partition) -> Iterator[_Place]:
    """The position row of the live build, held until the end of the transaction."""
    with connection.transaction():
        connection.execute("SELECT FROM ingest.builds WHERE state = 'live' FOR SHARE")
        build = live_build(connection).name
        row = connection.execute(
            f"SELECT next_offset, cluster_id, topic_id FROM {build}.positions"
            " WHERE topic = %s AND partition = %s FOR UPDATE",
            partition,
        ).fetchone()
        if row is None:
            raise UnknownThingError(
                f"{partition[0]}:{partition[1]} has no position yet: no worker has seen it."
                " `viewkeeper status` lists them"
            )
        yield _Place(connection, build, partition, *row)


def _take_off(place: _Place, start: int) -> None:
    """Free the offsets from `start` on, which the log will give to other events."""
    values = {
        "topic": place.partition[0],
        "partition": place.partition[1],
        "topic_id": place.topic_id,
        "start": start,
    }
    for statement in (
        f'UPDATE {place.build}.tombstones SET "offset" = %(start)s - 1'
        ' WHERE topic = %(topic)s AND partition = %(partition)s AND "offset" >= %(start)s',
        *(
            f"UPDATE {place.build}.{view} SET source_offset = %(start)s - 1"
            " WHERE source_topic = %(topic)s AND source_partition = %(partition)s"
            " AND source_offset >= %(start)s"
            for view in _views_with_source()
        ),
        f"DELETE FROM {place.build}.applied_dead_letters WHERE topic_id = %(topic_id)s"
        ' AND partition = %(partition)s AND "offset" >= %(start)s',
        "UPDATE ingest.dead_letters SET topic_id = topic_id || ' until ' || now()::text"
        " WHERE topic_id = %(topic_id)s AND partition = %(partition)s"
        ' AND "offset" >= %(start)s',
    ):
        place.connection.execute(statement, values)


def _views_with_source() -> list[str]:
    return [view.name for view in CATALOGUE.stream_views]
