"""What operators read and switch in the database: builds, positions, dead letters, pauses.

Stands apart from `write.py` because none of it is part of a batch: short statements of their own,
for the command line. It never changes a position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from views.positions import Partition

Connection = psycopg.Connection[Any]


class UnknownThingError(Exception):
    """What the operator named does not exist. The message says what does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build, as `ingest.builds` has it."""

    number: int
    name: str
    state: str

    @property
    def live(self) -> bool:
        """Whether readers are served from it."""
        return self.state == "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """One row of a build's positions. `behind_s` is the age of `complete_as_of` by the database."""

    topic: str
    partition: int
    next_offset: int
    end_offset: int | None
    behind_s: float | None
    owner: str | None
    owner_epoch: int
    paused: bool
    stopped_reason: str | None
    applied: int
    superseded: int
    duplicates: int
    tombstones: int
    dead: int

    @property
    def place(self) -> Partition:
        """Topic and partition."""
        return self.topic, self.partition


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildProgress:
    """How far one build is: the offsets that it holds, and how many the live one has beyond it."""

    name: str
    state: str
    events: int
    behind_live_events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterLine:
    """A dead letter in a list: everything but its bytes."""

    id: int
    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    state: str
    attempts: int
    schema_id: int | None
    recorded_at: datetime
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter whole. `headers` is a list of [name, value in base64 or null]."""

    id: int
    topic: str
    topic_id: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[list[str | None]] | None
    recorded_at: datetime
    schema_id: int | None
    reason: str
    detail: str
    attempts: int
    first_seen_at: datetime
    last_seen_at: datetime
    state: str
    decided_at: datetime | None
    decided_by: str | None
    purged_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters; None matches all. `after_id` pages: only letters with a higher id.

    `from_offset` and `to_offset` are both within; `since` is when a letter was first seen.
    """

    ids: tuple[int, ...] | None = None
    topic: str | None = None
    partition: int | None = None
    reason: str | None = None
    state: str | None = None
    from_offset: int | None = None
    to_offset: int | None = None
    since: datetime | None = None
    after_id: int | None = None


def builds(connection: Connection) -> list[Build]:
    """Every build, oldest first."""
    with connection.cursor(row_factory=class_row(Build)) as cursor:
        return cursor.execute(
            "SELECT number, name, state FROM ingest.builds ORDER BY number"
        ).fetchall()


def live_build(connection: Connection) -> Build:
    """The build that readers are served from. UnknownThingError: there is none."""
    for build in builds(connection):
        if build.live:
            return build
    raise UnknownThingError("no build is live: run `alembic upgrade head`")


def progress(connection: Connection) -> list[BuildProgress]:
    """How far every build is, oldest first. UnknownThingError: none is live."""
    query = (
        "SELECT coalesce(sum(p.next_offset), 0)::bigint,"
        " coalesce(sum(greatest(l.next_offset - coalesce(p.next_offset, 0), 0)), 0)::bigint"
        " FROM {} l LEFT JOIN {} p USING (topic, partition)"
    )
    live = sql.Identifier(live_build(connection).name, "positions")
    found = []
    for build in builds(connection):
        try:
            row = connection.execute(
                sql.SQL(query).format(live, sql.Identifier(build.name, "positions"))
            ).fetchone()
        except psycopg.errors.UndefinedTable:  # dropped a moment ago
            continue
        assert row is not None
        found.append(
            BuildProgress(
                name=build.name, state=build.state, events=row[0], behind_live_events=row[1]
            )
        )
    return found


def partitions(connection: Connection, build: Build) -> list[PartitionState]:
    """The positions of a build, in order. A partition that no worker has seen has no row."""
    query = sql.SQL(
        "SELECT topic, partition, next_offset, end_offset, owner, owner_epoch, paused,"
        " stopped_reason, applied, superseded, duplicates, tombstones, dead,"
        " extract(epoch FROM clock_timestamp() - complete_as_of)::float8 AS behind_s"
        " FROM {} ORDER BY topic, partition"
    ).format(sql.Identifier(build.name, "positions"))
    with connection.cursor(row_factory=class_row(PartitionState)) as cursor:
        return cursor.execute(query).fetchall()


def pause(connection: Connection, topic: str, partition: int | None = None) -> list[Partition]:
    """Have the workers leave a topic, or one partition of it, alone. What is paused now."""
    return _switch(connection, (topic, partition), sql.SQL("paused = true"))


def resume(connection: Connection, topic: str, partition: int | None = None) -> list[Partition]:
    """Let the workers go on, also where a partition was stopped for a reason. What may go on."""
    change = sql.SQL("paused = false, stopped_reason = NULL")
    return _switch(connection, (topic, partition), change)


def stopped(connection: Connection, topic: str, partition: int | None = None) -> list[Partition]:
    """The partitions of a topic, or that one of it, that were stopped. UnknownThingError: none."""
    found = [
        state.place
        for state in partitions(connection, live_build(connection))
        if state.topic == topic
        and partition in (None, state.partition)
        and state.stopped_reason is not None
    ]
    if not found:
        named = topic if partition is None else f"{topic}:{partition}"
        raise UnknownThingError(f"nothing of {named} was stopped: `viewkeeper status` says")
    return found


def _switch(
    connection: Connection, place: tuple[str, int | None], change: sql.SQL
) -> list[Partition]:
    """Change the rows of the live build; the build's row is held so that no swap comes between."""
    topic, partition = place
    with connection.transaction():
        connection.execute("SELECT FROM ingest.builds WHERE state = 'live' FOR SHARE")
        update = sql.SQL(
            "UPDATE {} SET {} WHERE topic = %(topic)s"
            " AND (%(partition)s::int IS NULL OR partition = %(partition)s)"
            " RETURNING topic, partition"
        ).format(sql.Identifier(live_build(connection).name, "positions"), change)
        rows = connection.execute(update, {"topic": topic, "partition": partition}).fetchall()
    if not rows:
        named = topic if partition is None else f"{topic}:{partition}"
        raise UnknownThingError(
            f"{named} has no position yet: no worker has seen it. `viewkeeper status` lists them"
        )
    return sorted((str(row[0]), int(row[1])) for row in rows)


_LINE = (
    'id, topic, partition, "offset", reason, detail, state, attempts, schema_id, recorded_at,'
    " first_seen_at, last_seen_at"
)
MATCHES = (
    " WHERE (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))"
    " AND (%(topic)s::text IS NULL OR topic = %(topic)s)"
    " AND (%(partition)s::int IS NULL OR partition = %(partition)s)"
    " AND (%(reason)s::text IS NULL OR reason = %(reason)s)"
    " AND (%(state)s::text IS NULL OR state = %(state)s)"
    ' AND (%(from_offset)s::bigint IS NULL OR "offset" >= %(from_offset)s)'
    ' AND (%(to_offset)s::bigint IS NULL OR "offset" <= %(to_offset)s)'
    " AND (%(since)s::timestamptz IS NULL OR first_seen_at >= %(since)s)"
)
"""The condition of a filter; its values are those of `matching`."""


def dead_letters(
    connection: Connection, which: DeadLetterFilter, *, limit: int
) -> Sequence[DeadLetterLine]:
    """Dead letters in the order of their ids, at most `limit`."""
    query = sql.SQL(
        f"SELECT {_LINE} FROM ingest.dead_letters{MATCHES}"
        " AND (%(after_id)s::bigint IS NULL OR id > %(after_id)s) ORDER BY id LIMIT %(limit)s"
    )
    with connection.cursor(row_factory=class_row(DeadLetterLine)) as cursor:
        return cursor.execute(query, matching(which) | {"limit": limit}).fetchall()


def count_dead_letters(connection: Connection, which: DeadLetterFilter) -> dict[str, int]:
    """How many dead letters match, by reason, on whatever page they stand."""
    query = sql.SQL(
        f"SELECT reason, count(*) FROM ingest.dead_letters{MATCHES} GROUP BY reason ORDER BY 1"
    )
    return {str(r): int(n) for r, n in connection.execute(query, matching(which)).fetchall()}


def dead_letter(connection: Connection, letter_id: int) -> DeadLetter:
    """One dead letter by its id. UnknownThingError: there is none."""
    query = (
        'SELECT id, topic, topic_id, partition, "offset", key, value, headers, recorded_at,'
        " schema_id, reason, detail, attempts, first_seen_at, last_seen_at, state, decided_at,"
        " decided_by, purged_at FROM ingest.dead_letters WHERE id = %s"
    )
    with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        found = cursor.execute(query, (letter_id,)).fetchone()
    if found is None:
        raise UnknownThingError(
            f"there is no dead letter {letter_id}: `viewkeeper dead-letters list` names them"
        )
    return found


def matching(which: DeadLetterFilter) -> dict[str, Any]:
    """The values for `MATCHES`."""
    return {
        "ids": None if which.ids is None else list(which.ids),
        "topic": which.topic,
        "partition": which.partition,
        "reason": which.reason,
        "state": which.state,
        "from_offset": which.from_offset,
        "to_offset": which.to_offset,
        "since": which.since,
        "after_id": which.after_id,
    }


def discard(
    connection: Connection, which: DeadLetterFilter, *, who: str, dry_run: bool = False
) -> int:
    """Decide that the open dead letters that match stay out for good; how many they are."""
    cursor = connection.execute(
        "UPDATE ingest.dead_letters SET state = 'discarded', decided_at = now(),"
        f" decided_by = %(who)s{MATCHES} AND state = 'open'",
        matching(which) | {"who": who},
    )
    _end(connection, dry_run=dry_run)
    return cursor.rowcount


PURGED_AT_ONCE = 5_000


def purge(
    connection: Connection,
    which: DeadLetterFilter,
    *,
    older_than: timedelta,
    who: str,
    dry_run: bool = False,
) -> int:
    """Remove key, value, headers and detail of dead letters; how many they are.

    They hold what people wrote; coordinates, reason and decision stay, and `detail` says who purged
    them. What waits in the outbox is
    not sent any more. The record itself is still in the log, for builds that have to take it in.
    """
    query = sql.SQL(
        "WITH old AS (SELECT id FROM ingest.dead_letters"
        f"{MATCHES} AND purged_at IS NULL AND first_seen_at < now() - %(older_than)s"
        f" ORDER BY id LIMIT {PURGED_AT_ONCE} FOR UPDATE),"
        " unsent AS (DELETE FROM ingest.outbox USING old WHERE dead_letter_id = old.id)"
        " UPDATE ingest.dead_letters d SET key = NULL, value = NULL, headers = NULL,"
        " detail = 'purged by ' || %(who)s, purged_at = now() FROM old WHERE d.id = old.id"
    )
    values = matching(which) | {"older_than": older_than, "who": who}
    if dry_run:
        count = connection.execute(query, values).rowcount
        connection.rollback()
        return count
    total = 0
    while count := connection.execute(query, values).rowcount:
        connection.commit()
        total += count
    return total


def _end(connection: Connection, *, dry_run: bool) -> None:
    if dry_run:
        connection.rollback()
    else:
        connection.commit()
