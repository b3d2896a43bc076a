"""The only SQL writer of a batch: one transaction that fences, writes the rows and advances.

Exactly-once rests on this page. The rows of a batch and the positions that contain them are
committed together, and only by the newest owner of each partition: the fence is an update of the
position row that hits nothing once somebody else drew a newer epoch or moved the position.
COMMIT is sent only after the client has read that every fence hit its row.

The order of the steps is chosen (docs/architecture.md, "The transaction"): everything bulky is
staged before anything is locked, orders are locked in key order, hot aggregate rows come last.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from psycopg import Connection, Cursor

from ingest.claim import Observation, note_ends
from ingest.connect import Session
from ingest.errors import FencedError, TransientError
from ingest.failpoints import (
    AFTER_AGGREGATES,
    AFTER_BEGIN,
    AFTER_COMMIT,
    AFTER_STAGE,
    AFTER_UPSERT,
    BEFORE_COMMIT,
    reached,
)
from ingest.fold import COUNTERS, Changes, Folded, Stored, reclassify
from ingest.letters import list_applied
from ingest.records import Dead, Key, Row
from ingest.statements import Statements, ViewStatements
from views.model import StreamView
from views.positions import Partition, PositionVector

CHANNEL = "viewkeeper"
"""Where readers listen: the payload is the build and the position vector that moved."""
_FEW_ROWS = 200
"""The most rows of a batch that is staged within the pipeline."""
_MAX_PAYLOAD_BYTES = 7_900  # PostgreSQL takes less than 8,000


def write(
    session: Session,
    folded: Folded,
    *,
    epochs: Mapping[Partition, int],
    topic_ids: Mapping[str, str],
    ends: Mapping[Partition, Observation],
) -> None:
    """Commit a folded batch: its rows, dead letters and positions, or nothing.

    `epochs` are the epochs that this worker drew, per partition; `ends` what was seen of the ends
    of partitions since the last batch. FencedError: somebody newer owns
    a partition; nothing was committed. BatchRefusedError: the database refuses a value; nothing
    was committed. TransientError: it is not known whether the batch was committed; the session is
    unusable, and the position rows tell.
    """
    with session.transaction() as connection:
        statements = session.statements
        is_small = folded.rows <= _FEW_ROWS and not folded.removals
        if not is_small:
            connection.execute(session.emptied(folded.rows))
            stage(connection, statements, folded)
        with connection.pipeline():
            if is_small and folded.rows:
                connection.execute(session.emptied(folded.rows))
                _stage_few(connection, statements, folded)
            reached(AFTER_STAGE)
            fence = _fence(connection, statements, folded, epochs)
            changed = _change_rows(connection, statements, folded)
            if session.target is None:
                connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, _payload(session, folded)))
        _expect_hit(fence, folded)
        reached(AFTER_AGGREGATES)
        before = {partition: list(counts) for partition, counts in folded.counters.items()}
        if reclassify(folded, changed.stored()):
            _correct_counters(connection, statements, folded, before)
        if session.target is None or session.target.keeps_dead:
            bury(connection, folded.dead, topic_ids)
        list_applied(connection, session.build, _redriven(folded, topic_ids))
        note_ends(connection, session.build, ends, epochs)
        reached(BEFORE_COMMIT)
    reached(AFTER_COMMIT)


def apply(connection: Connection[Row], statements: Statements, folded: Folded) -> None:
    """Change the rows of a build by folded events, without a fence: no position moves.

    For whoever applies events outside their place in the log: a redrive, a build that takes in
    what was redriven elsewhere. The build is the one that `statements` was made for; the connection
    must have its temporary tables (`Statements.temporary`). To be called within a transaction of
    the caller's, who first takes what keeps others away (`ingest.redrive.hold_live`, or a build
    that nobody else writes), and who closes the dead letters in that same transaction.

    Afterwards `folded.dead` names the events that were not applied because their version came
    before with other content; every other event is in, or its row is newer. Errors are those of
    `psycopg`, and TransientError.
    """
    connection.execute(statements.truncate)
    stage(connection, statements, folded)
    with connection.pipeline():
        changed = _change_rows(connection, statements, folded)
    reclassify(folded, changed.stored())


def stage(connection: Connection[Row], statements: Statements, folded: Folded) -> None:
    """Send the batch into the temporary tables, which are empty. Nothing is locked yet, so this may
    take its time."""
    for view in statements.views:
        changes = folded.changes[view.view.name]
        if changes.events:
            with connection.cursor() as cursor, cursor.copy(view.copy) as copy:
                copy.set_types(view.staged_kinds)
                for row in _staged_rows(changes):
                    copy.write_row(row)
        if view.bury is not None and folded.removals:
            _stage_removals(connection, view, folded)


def _stage_few(connection: Connection[Row], statements: Statements, folded: Folded) -> None:
    """The same within the pipeline: COPY is asked and answered twice for each table, and for a few
    rows that takes longer than all the rest."""
    for view in statements.views:
        changes = folded.changes[view.view.name]
        if changes.events:
            names = view.staged_columns
            rows = [dict(zip(names, row, strict=True)) for row in _staged_rows(changes)]
            connection.execute(view.stage, (orjson.dumps(rows).decode(),))


def _staged_rows(changes: Changes) -> Iterable[Row]:
    reached(AFTER_BEGIN)
    for event, row, lowest_version in changes.winners():
        record = event.record
        yield (
            *row,
            record.topic,
            record.partition,
            record.offset,
            event.schema_id,
            record.timestamp_ms,
            lowest_version,
        )


def _stage_removals(connection: Connection[Row], view: ViewStatements, folded: Folded) -> None:
    rows = [
        (key, partition, record.offset, record.timestamp_ms)
        for (topic, key, partition), record in folded.removals.items()
        if topic == view.view.stream.topic
    ]
    copy_sql = f"COPY buried_{view.view.name} FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(copy_sql) as copy:
        copy.set_types(("text", "int4", "int8", "int8"))
        for row in rows:
            copy.write_row(row)


def _fence(
    connection: Connection[Row],
    statements: Statements,
    folded: Folded,
    epochs: Mapping[Partition, int],
) -> Cursor[Row]:
    """Advance the positions where they are still ours. Sent, not read yet."""
    given = [_moved(folded, partition, epochs[partition]) for partition in folded.advances]
    return connection.execute(statements.fence, (orjson.dumps(given).decode(),))


def _expect_hit(fence: Cursor[Row], folded: Folded) -> None:
    lost = tuple(sorted(folded.advances.keys() - set(fence)))
    if lost:
        raise FencedError(lost)


@dataclass(frozen=True, slots=True)
class _Changed:
    """What the statements of `_change_rows` answer, once they were read."""

    met: list[tuple[int, Sequence[Cursor[Row]]]]
    asked: list[tuple[ViewStatements, Cursor[Row]]]

    def stored(self) -> dict[str, dict[Key, Stored]]:
        """Per view the stored rows that were not older than the batch."""
        for touched, cursors in self.met:
            if sum(cursor.rowcount for cursor in cursors) != touched:
                raise TransientError("a row vanished between being found and being locked")
        return {view.view.name: _stored(view, cursor) for view, cursor in self.asked}


def _change_rows(connection: Connection[Row], statements: Statements, folded: Folded) -> _Changed:
    """Meet, ask, upsert, sum, all of it staged before. Sent, not read yet."""
    changed = _Changed([], [])
    if folded.rows:
        for view in statements.parents:
            if view.make is not None:
                met = [connection.execute(sql) for sql in (view.make, _known(view.meet))]
                changed.met.append((len(_touched(view.view, folded)), met))
        for view in statements.views:
            if folded.changes[view.view.name].events:
                changed.asked.append((view, connection.execute(view.ask)))
        _upsert(connection, statements, folded)
        reached(AFTER_UPSERT)
        for aggregate in statements.aggregates:
            connection.execute(aggregate.add)
            connection.execute(aggregate.drop)
    return changed


def _touched(view: StreamView, folded: Folded) -> set[Key]:
    """The keys of a meeting place that a batch touches: by an event, by a child's, by a tombstone.

    They are the ones that `ViewStatements.make` and `meet` find, each once.
    """
    touched: set[Key] = set(folded.changes[view.name].events)
    if view.rollup is not None:
        child = view.rollup.child
        at = [child.key.index(name) for name in view.key]
        touched.update(tuple(key[n] for n in at) for key in folded.changes[child.name].events)
    touched.update((key,) for topic, key, _ in folded.removals if topic == view.stream.topic)
    return touched


def _upsert(connection: Connection[Row], statements: Statements, folded: Folded) -> None:
    for child in statements.children:
        if folded.changes[child.view.name].events:
            if child.meet is not None:
                connection.execute(child.meet)
            connection.execute(_known(child.insert))
    for parent in statements.parents:
        if folded.changes[parent.view.name].events or parent.view.rollup is not None:
            connection.execute(_known(parent.update))
        if parent.bury is not None and folded.removals:
            connection.execute(parent.bury)
            if parent.hide is not None:
                connection.execute(parent.hide)


def _known(sql: str | None) -> str:
    assert sql is not None
    return sql


def _moved(folded: Folded, partition: Partition, epoch: int) -> dict[str, object]:
    """How a position moves, as the fence takes it."""
    advance = folded.advances[partition]
    return {
        "topic": partition[0],
        "partition": partition[1],
        "start": advance.start,
        "end": advance.end,
        "epoch": epoch,
        "last_event_ms": advance.last_event_ms,
        "leader_epoch": advance.leader_epoch,
        "complete_as_of": advance.complete_as_of,
        "stopped_reason": advance.stopped_reason,
        **dict(zip(COUNTERS, folded.counters[partition], strict=True)),
    }


def _stored(view: ViewStatements, cursor: Cursor[Row]) -> dict[Key, Stored]:
    width = len(view.view.key)
    return {row[:width]: Stored(row[width], row) for row in cursor}


def _correct_counters(
    connection: Connection[Row],
    statements: Statements,
    folded: Folded,
    before: Mapping[Partition, Sequence[int]],
) -> None:
    for partition, counts in folded.counters.items():
        change = [now - was for now, was in zip(counts, before[partition], strict=True)]
        if any(change):
            values = dict(zip(COUNTERS, change, strict=True))
            connection.execute(
                statements.count, {"topic": partition[0], "partition": partition[1], **values}
            )


def _redriven(folded: Folded, topic_ids: Mapping[str, str]) -> Iterable[tuple[str, int, int]]:
    for (topic, partition), advance in folded.advances.items():
        for offset in advance.redriven:
            yield topic_ids[topic], partition, offset


_DEAD_LETTER = """
WITH kept AS (
    INSERT INTO ingest.dead_letters
        (topic, topic_id, partition, "offset", key, value, headers, recorded_at, schema_id,
         reason, detail, attempts)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (topic_id, partition, "offset") DO NOTHING
    RETURNING id)
INSERT INTO ingest.outbox (dead_letter_id) SELECT id FROM kept
"""


def bury(connection: Connection[Row], dead: Sequence[Dead], topic_ids: Mapping[str, str]) -> None:
    """Keep each dead record with its bytes. One that is recorded already goes by its state."""
    if dead:
        with connection.cursor() as cursor:
            cursor.executemany(_DEAD_LETTER, [_dead_row(item, topic_ids) for item in dead])


def _dead_row(item: Dead, topic_ids: Mapping[str, str]) -> Row:
    record = item.record
    headers = [
        [name, None if value is None else base64.b64encode(value).decode()]
        for name, value in record.headers
    ]
    return (
        record.topic,
        topic_ids[record.topic],
        record.partition,
        record.offset,
        record.key,
        record.value,
        json.dumps(headers) if headers else None,
        datetime.fromtimestamp(record.timestamp_ms / 1000, UTC),
        item.schema_id,
        item.fault.reason.value,
        str(item.fault).replace("\0", "\\0"),
        item.attempts,
    )


def _payload(session: Session, folded: Folded) -> str:
    moved = {partition: advance.end for partition, advance in folded.advances.items()}
    payload = f"{session.build} {PositionVector(moved)}"
    return payload if len(payload.encode()) < _MAX_PAYLOAD_BYTES else session.build
