"""Ownership of partitions in the database: drawing an epoch, refusing what would be wrong, waiting
for ghosts, and telling how fresh a position is.

Stands apart from `write` because nothing here writes a view. Whoever draws the newest epoch of a
partition owns it; everybody else is fenced at the next commit. Times are the database's.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection

from ingest.connect import APPLICATION, Session, connect
from ingest.errors import FencedError
from ingest.failpoints import IN_ASSIGN, reached
from ingest.letters import Recorded, recorded
from views.positions import Partition

GHOST_WAIT_S = 5.0
"""How long a taker-over waits for a position row before it ends the backends that hold it."""

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerView:
    """What the broker says of one partition: where its offsets belong and what it still holds.

    `compaction` is the cleanup.policy where the topic is compacted and must not be.
    """

    cluster_id: str
    topic_id: str
    low: int
    high: int
    compaction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A partition that this worker owns: its epoch, where to read on, and what is known of it.

    `letters` are the dead letters that are recorded from `next_offset` on: there are some only
    where the position went back.
    """

    epoch: int
    next_offset: int
    paused: bool
    leader_epoch: int = -1
    loss_accepted_until: int = 0
    letters: Mapping[int, Recorded] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A partition that must not be read: the cause and the remedy, in a sentence.

    `epoch` is the newest that was drawn: who asks again later may take the partition only if
    nobody drew a newer one meanwhile.
    """

    reason: str
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """An end of a partition that was asked for *after* `at` (database time)."""

    high: int
    at: datetime


def claim(
    session: Session,
    brokers: Mapping[Partition, BrokerView],
    *,
    still_mine: Mapping[Partition, int] | None = None,
) -> dict[Partition, Claimed | Refusal]:
    """Draw a new epoch for each partition and read where it stands, in one transaction.

    Waits for a commit that is still under way on one of the rows. A partition that `still_mine`
    names is only taken if its epoch is the given one. FencedError: another worker drew a newer
    one; no epoch was drawn.
    """
    partitions = sorted(brokers)
    with session.transaction() as connection:
        with _ghosts_ended(session, connection):
            _refuse_left_behind(connection, session, partitions)
            rows = _locked(connection, session.build, partitions)
        lost = tuple(
            partition
            for partition, epoch in (still_mine or {}).items()
            if partition in rows and rows[partition]["epoch"] != epoch
        )
        if lost:
            raise FencedError(lost)
        taken = {
            partition: _taken(connection, session, partition, rows.get(partition), broker)
            for partition, broker in sorted(brokers.items())
        }
        reached(IN_ASSIGN)
        return taken


def _refuse_left_behind(
    connection: Connection[Row], session: Session, partitions: Sequence[Partition]
) -> None:
    """Hold the build's row, so that no swap comes between; FencedError: one has been.

    A session that was opened before a swap knows the build of then: nobody may own partitions of
    a build that is not served any more.
    """
    row = connection.execute(
        "SELECT state FROM ingest.builds WHERE name = %s FOR SHARE", (session.build,)
    ).fetchone()
    if session.target is None and row != ("live",):
        raise FencedError(tuple(partitions))


def _locked(
    connection: Connection[Row], build: str, partitions: Sequence[Partition]
) -> dict[Partition, dict[str, Any]]:
    found: dict[Partition, dict[str, Any]] = {}
    for topic, partition in partitions:
        row = connection.execute(
            "SELECT next_offset, owner_epoch, cluster_id, topic_id, stopped_reason"
            f" FROM {build}.positions WHERE topic = %s AND partition = %s FOR UPDATE",
            (topic, partition),
        ).fetchone()
        if row is not None:
            names = ("next_offset", "epoch", "cluster_id", "topic_id", "stopped")
            found[topic, partition] = dict(zip(names, row, strict=True))
    return found


def _taken(
    connection: Connection[Row],
    session: Session,
    partition: Partition,
    row: Mapping[str, Any] | None,
    broker: BrokerView,
) -> Claimed | Refusal:
    if row is not None:
        reason = row["stopped"] or refusal(partition, row, broker)
        if reason is not None:
            return Refusal(reason, row["epoch"])
    epoch, next_offset, paused, leader_epoch, accepted = _drawn(
        connection, session, partition, broker
    )
    letters: Mapping[int, Recorded] = {}
    if session.target is None:  # a build beside the live one takes in redriven letters at its end
        letters = recorded(connection, broker.topic_id, partition[1], start=next_offset)
    return Claimed(
        epoch=epoch,
        next_offset=next_offset,
        paused=paused,
        leader_epoch=leader_epoch,
        loss_accepted_until=accepted,
        letters=letters,
    )


def _drawn(
    connection: Connection[Row], session: Session, partition: Partition, broker: BrokerView
) -> Row:
    cursor = connection.execute(
        f"INSERT INTO {session.build}.positions AS p"
        " (topic, partition, cluster_id, topic_id, owner_epoch, owner)"
        " VALUES (%s, %s, %s, %s, 1, %s) ON CONFLICT (topic, partition) DO UPDATE SET"
        " owner_epoch = p.owner_epoch + 1, owner = excluded.owner,"
        " cluster_id = coalesce(p.cluster_id, excluded.cluster_id),"
        " topic_id = coalesce(p.topic_id, excluded.topic_id)"
        " RETURNING owner_epoch, next_offset, paused, coalesce(leader_epoch, -1),"
        " coalesce(loss_accepted_until, 0)",
        (*partition, broker.cluster_id, broker.topic_id, session.owner),
    )
    row = cursor.fetchone()
    assert row is not None
    return row


def refusal(partition: Partition, row: Mapping[str, Any], broker: BrokerView) -> str | None:
    """Why going on from this position would be wrong, with the remedy; None: it would not."""
    name, next_offset = f"{partition[0]}:{partition[1]}", row["next_offset"]
    if row["cluster_id"] not in (None, broker.cluster_id):
        return (
            f"{name} belongs to Kafka cluster {row['cluster_id']}, and this is cluster"
            f" {broker.cluster_id}: offsets mean nothing there. Point"
            " VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS at the first, or rebuild from the second"
            ' (docs/operating.md, "Another cluster").'
        )
    if row["topic_id"] not in (None, broker.topic_id):
        return (
            f"topic {partition[0]} was deleted and created again (id {row['topic_id']}, now"
            f" {broker.topic_id}): offset {next_offset} is another event's. Rebuild from the new"
            ' topic (docs/operating.md, "Recreated topic").'
        )
    if broker.compaction is not None:
        return refused_compaction(partition[0], broker.compaction)
    if next_offset < broker.low:
        return (
            f"{broker.low - next_offset} events of {name} are gone: the log starts at"
            f" {broker.low}, and {next_offset} is the next to read. Set the topic's retention to"
            " unlimited, and restore its records or accept the loss"
            ' (docs/operating.md, "Retention gap").'
        )
    if next_offset > broker.high:
        return (
            f"{name} ends at {broker.high}, and {next_offset} is the next to read: the log was cut"
            ' or restored from an older copy. See docs/operating.md, "Log shorter than views".'
        )
    return None


def refused_compaction(topic: str, policy: str) -> str:
    """Why a compacted topic whose key does not identify its events is not read."""
    return (
        f"topic {topic} has cleanup.policy={policy}: several of its events share a key, and"
        " compaction keeps only the last of them. Set cleanup.policy=delete and retention.ms=-1;"
        ' what compaction has removed already is gone (docs/operating.md, "Compacted topic").'
    )


@contextmanager
def _ghosts_ended(session: Session, connection: Connection[Row]) -> Iterator[None]:
    """While inside, whatever of ours blocks this connection for more than 5 s is ended.

    A worker that is frozen in mid-COPY holds its locks past every timeout of the server: only
    pg_terminate_backend frees them.
    """
    timer = threading.Timer(GHOST_WAIT_S, _end_blockers, (session, connection.info.backend_pid))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end_blockers(session: Session, pid: int) -> None:
    try:
        with connect(session.dsn, f"{APPLICATION} {session.owner} ghosts") as connection:
            connection.execute(
                "SELECT pg_terminate_backend(a.pid) FROM unnest(pg_blocking_pids(%s)) AS b(pid)"
                " JOIN pg_stat_activity a ON a.pid = b.pid"
                " WHERE starts_with(a.application_name, %s)",
                (pid, APPLICATION),
            )
    except psycopg.Error:
        session.log.warning("could not end the backends that hold a position", exc_info=True)


def observe(
    session: Session, ends: Mapping[Partition, Observation], epochs: Mapping[Partition, int]
) -> None:
    """Note the ends of owned partitions, and how fresh the ones are that have reached theirs.

    FencedError: a partition has a newer owner, or a swap has retired the build. It is how a worker
    learns of either while there is nothing to write.
    """
    with session.transaction() as connection:
        note_ends(connection, session.build, ends, epochs)
        rows = connection.execute(
            f"SELECT topic, partition, owner_epoch FROM {session.build}.positions"
        )
        drawn = {(topic, partition): epoch for topic, partition, epoch in rows}
        lost = tuple(p for p in sorted(ends) if drawn.get(p) != epochs.get(p))
        if lost:
            raise FencedError(lost)


def note_ends(
    connection: Connection[Row],
    build: str,
    ends: Mapping[Partition, Observation],
    epochs: Mapping[Partition, int],
) -> None:
    """The statement of `observe`, within a transaction that is open already."""
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {build}.positions SET end_offset = %(high)s, observed_at = %(at)s,"
            " complete_as_of = CASE WHEN next_offset >= %(high)s"
            " THEN greatest(complete_as_of, %(at)s) ELSE complete_as_of END"
            " WHERE topic = %(topic)s AND partition = %(partition)s AND owner_epoch = %(epoch)s",
            [
                {
                    "topic": topic,
                    "partition": partition,
                    "high": end.high,
                    "at": end.at,
                    "epoch": epochs[topic, partition],
                }
                for (topic, partition), end in sorted(ends.items())
                if (topic, partition) in epochs
            ],
        )
