"""One order explained: every event behind its rows, what each changed, and what they add up to.

The log is read anew and applied one event at a time by the worker's own fold and statements, into
temporary tables that nobody else sees. Nothing is locked and nothing that is served is touched, so
this may be asked at any time, beside a rebuild too.
"""

import heapq
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from ingest.connect import Session, Target, run_all
from ingest.errors import BatchRefusedError, Fault, Reason
from ingest.fold import fold
from ingest.letters import Recorded
from ingest.operate import Build, UnknownThingError
from ingest.records import Dead, Event, Item, Record
from ingest.settings import IngestSettings
from ingest.write import apply
from rebuild import builds, checks
from rebuild.builder import VIEWS, event_forms, open_decoder
from rebuild.builds import Row
from rebuild.feed import open_log
from rebuild.keys import Scan, of_keys
from views import CATALOGUE, ddl
from views.model import Catalogue
from views.positions import Partition, PositionVector

KEY: Final = "order_id"
_TEMPORARY: Final = "pg_temp"
_LATER_S: Final = 3.0
"""How long the log behind the views may be silent: an open transaction ends nothing."""
_VIEWS: Final = tuple(view for view in CATALOGUE.stream_views if view.key[0] == KEY)
_TOPICS: Final = frozenset(view.stream.topic for view in _VIEWS)
_KEYS: Final = {view.name: view.key for view in _VIEWS}
_FORMS: Final = event_forms()
_OUTCOMES: Final = ("applied", "superseded", "duplicate", "tombstone", "conflict")
"""What an event of its own counts as, in the order of `ingest.fold.COUNTERS`."""

Images = Mapping[tuple[str, ...], Mapping[str, Any]]
"""Rows by view and key."""
Tell = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One column of one row that an event changed; `before` is None where it made the row."""

    view: str
    key: tuple[str, ...]
    column: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One record of the key. `outcome` is applied, superseded, duplicate, tombstone, conflict,
    dead, or waiting: it lies behind the position of the views."""

    topic: str
    partition: int
    offset: int
    recorded_at: datetime
    schema_id: int | None
    key: tuple[str, ...] | None
    version: int | None
    status: str | None
    outcome: str
    reason: str | None = None
    detail: str | None = None
    letter: str | None = None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A row as the views hold it and as the events add up to; `differs` names the columns."""

    view: str
    key: tuple[str, ...]
    stored: Mapping[str, Any] | None
    from_log: Mapping[str, Any] | None
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """What was read of one partition: offsets from `first` up to, not including, `end`."""

    topic: str
    partition: int
    first: int
    end: int


@dataclass(slots=True, kw_only=True)
class Explained:
    """The whole answer."""

    order_id: str
    build: str
    position: str
    scanned: list[Scanned]
    events: list[Step]
    rows: list[Compared]
    notes: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether the views hold what the events add up to."""
        return not any(row.differs for row in self.rows)


class _Held(NamedTuple):
    """The live build in one snapshot: where it is, its rows of the key, and all dead letters."""

    build: Build
    positions: Mapping[Partition, int]
    rows: Images
    letters: Mapping[tuple[str, int, int], tuple[Recorded, bool]]


def explain_order(
    settings: IngestSettings, order_id: str, *, stop: threading.Event, tell: Tell
) -> Explained:
    """Every event of an order, and its rows.

    All partitions are read: which one a key goes to depends on its producer's partitioner, and on
    how many partitions there were. UnknownThingError: neither the log nor the views know the order.
    RefusedError: the live views are of another log. StoppedError: `stop` was set.
    """
    with ExitStack() as stack:
        log = stack.enter_context(closing(open_log(settings)))
        start = checks.look(settings, log, accept_missing=True)
        dsn = settings.database_url.get_secret_value()
        with builds.open_session(dsn, f"explain order {order_id}") as connection:
            checks.refuse_other_log(connection, builds.live(connection), start.brokers)
            held = _held(connection, order_id, start.topic_ids)
        brokers = {p: b for p, b in sorted(start.brokers.items()) if p[0] in _TOPICS}
        begins = {p: broker.low for p, broker in brokers.items()}
        scan = Scan(log, begins, of_keys([order_id]), stop, tell=tell)
        scan.go_to({p: n for p, n in held.positions.items() if p in brokers})
        ends = {p: broker.high for p, broker in brokers.items()}
        whole = scan.read_on(ends, _LATER_S)
        items = _decoded(settings, stack, stop, scan.records)
        replay = _Replay(settings, stack, order_id)
        steps = list(_steps(replay, items, held))
        if not steps and not held.rows:
            raise UnknownThingError(
                f"no event of order {order_id!r} is in the log, and no view holds it"
                f" ({len(brokers)} partitions were read)"
            )
        moved = _in_several_partitions(steps)
        return Explained(
            order_id=order_id,
            build=held.build.name,
            position=str(PositionVector(held.positions)),
            scanned=[
                Scanned(topic=t, partition=p, first=low, end=scan.position((t, p)))
                for (t, p), low in begins.items()
            ],
            events=steps,
            rows=list(_compared(held.rows, replay.rows, moved=moved)),
            notes=list(_notes(start.begins, moved=moved, whole=whole)),
        )


def _held(connection: Connection[Row], order_id: str, topic_ids: list[str]) -> _Held:
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        live = builds.live(connection)
        return _Held(
            live,
            builds.positions(connection, live),
            _images(connection, live.name, order_id),
            _letters(connection, live, topic_ids),
        )


def _images(connection: Connection[Row], build: str, order_id: str) -> Images:
    found: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for view in _VIEWS:
        rows = connection.execute(
            f'SELECT row_to_json(t)::text FROM {build}.{view.name} t WHERE t."{KEY}" = %s',
            (order_id,),
        )
        for (text,) in rows:
            row = json.loads(text, parse_float=str)
            found[view.name, *(row[name] for name in view.key)] = row
    return found


def _letters(
    connection: Connection[Row], live: Build, topic_ids: list[str]
) -> dict[tuple[str, int, int], tuple[Recorded, bool]]:
    """Dead letters on record by their place, and whether the live build has taken each in."""
    rows = connection.execute(
        'SELECT d.topic, d.partition, d."offset", d.state, d.reason, d.detail, d.schema_id,'
        " d.attempts, l.topic_id IS NOT NULL FROM ingest.dead_letters d"
        f" LEFT JOIN {live.name}.applied_dead_letters l"
        ' USING (topic_id, partition, "offset") WHERE d.topic_id = ANY (%s)',
        (topic_ids,),
    )
    return {
        (topic, partition, offset): (
            Recorded(state, Fault(Reason(reason), detail), schema_id, attempts),
            taken,
        )
        for topic, partition, offset, state, reason, detail, schema_id, attempts, taken in rows
    }


def _decoded(
    settings: IngestSettings, stack: ExitStack, stop: threading.Event, records: list[Record]
) -> list[Item]:
    if not records:
        return []
    decoder = open_decoder(settings, stack, "explain", stop)
    items = decoder.decode(_in_order(records))
    if decoder.decode_again(items, afresh=True):
        decoder.decode_again(items, afresh=False)
    return items


def _in_order(records: Iterable[Record]) -> list[Record]:
    """Each partition in its own order, and among each other by the time they were recorded at."""
    by_partition: dict[Partition, list[tuple[int, str, int, int, Record]]] = {}
    for r in sorted(records, key=lambda r: (r.topic, r.partition, r.offset)):
        rows = by_partition.setdefault((r.topic, r.partition), [])
        at = max(r.timestamp_ms, rows[-1][0] if rows else r.timestamp_ms)
        rows.append((at, r.topic, r.partition, r.offset, r))
    return [row[-1] for row in heapq.merge(*by_partition.values(), key=lambda row: row[:4])]


def _steps(replay: "_Replay", items: Sequence[Item], held: _Held) -> Iterator[Step]:
    """The records in their order; those that were redriven last, as they were applied."""
    redriven = []
    for item in items:
        place = _place(item.record)
        letter, taken = held.letters.get(place, (None, False))
        if item.record.offset >= held.positions.get(place[:2], 0):
            yield _step(item, "waiting")
        elif letter is None:
            yield replay.take(item, None)
        elif taken:
            redriven.append(item)
        else:
            dead = Dead(item.record, letter.fault, letter.schema_id, letter.attempts)
            yield _step(dead, _dead_outcome(letter.fault), fault=letter.fault, letter=letter.state)
    for item in redriven:
        yield replay.take(item, "redriven")


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


def _dead_outcome(fault: Fault) -> str:
    return "conflict" if fault.reason is Reason.VERSION_CONFLICT else "dead"


def _step(
    item: Item,
    outcome: str,
    *,
    fault: Fault | None = None,
    letter: str | None = None,
    changes: tuple[Change, ...] = (),
) -> Step:
    record, key, version, status = item.record, None, None, None
    if isinstance(item, Event):
        key, version = tuple(str(part) for part in item.key), item.version
        columns = _FORMS[record.topic].columns
        status = dict(zip(columns, item.row, strict=True)).get("status")
    if isinstance(item, Dead) and fault is None:
        fault = item.fault
    return Step(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        recorded_at=datetime.fromtimestamp(record.timestamp_ms / 1000, UTC),
        schema_id=item.schema_id if isinstance(item, Event | Dead) else None,
        key=key,
        version=version,
        status=status,
        outcome=outcome,
        reason=None if fault is None else fault.reason.value,
        detail=None if fault is None else str(fault),
        letter=letter,
        changes=changes,
    )


class _Replay:
    """Applies events one by one; `rows` are what they have added up to so far."""

    def __init__(self, settings: IngestSettings, stack: ExitStack, order_id: str) -> None:
        self._order_id = order_id
        self._session = Session(
            settings.database_url.get_secret_value(),
            catalogue=Catalogue(CATALOGUE.streams, CATALOGUE.stream_views),
            forms=_FORMS,
            allow_unsafe=True,  # nothing of it is kept
            target=Target(build=_TEMPORARY, keeps_dead=False),
        )
        stack.callback(self._session.close)
        with self._session.transaction() as connection:
            run_all(connection, ddl.create_tables(_TEMPORARY))
        self.rows: Images = {}

    def take(self, item: Item, letter: str | None) -> Step:
        """Apply an event, and say what came of it."""
        if isinstance(item, Dead):
            return _step(item, _dead_outcome(item.fault), letter=letter)
        folded = fold([item], advances={}, views=VIEWS)
        try:
            with self._session.transaction() as connection:
                apply(connection, self._session.statements, folded)
                after = _images(connection, _TEMPORARY, self._order_id)
        except BatchRefusedError as error:
            fault = Fault(Reason.REFUSED_BY_DATABASE, str(error))
            return _step(item, "dead", fault=fault, letter=letter)
        (counts,) = folded.counters.values()
        conflict = folded.dead[0].fault if folded.dead else None
        changes = tuple(_changes(self.rows, after))
        self.rows = after
        outcome = _OUTCOMES[counts.index(1)]
        return _step(item, outcome, fault=conflict, letter=letter, changes=changes)


def _changes(before: Images, after: Images) -> Iterator[Change]:
    for (view, *key), row in after.items():
        known = before.get((view, *key), {})
        for column, value in row.items():
            # Where a row comes from is what the step itself names.
            if column.startswith("source_") or column in _KEYS[view]:
                continue
            if known.get(column) != value:
                yield Change(
                    view=view,
                    key=tuple(key),
                    column=column,
                    before=known.get(column),
                    after=value,
                )


def _in_several_partitions(steps: Sequence[Step]) -> bool:
    places = {(step.topic, step.partition) for step in steps}
    return len(places) > len({topic for topic, _ in places})


def _compared(stored: Images, from_log: Images, *, moved: bool) -> Iterator[Compared]:
    for name in sorted(stored.keys() | from_log.keys()):
        one, other = stored.get(name), from_log.get(name)
        yield Compared(
            view=name[0],
            key=name[1:],
            stored=one,
            from_log=other,
            differs=tuple(_differing(one or {}, other or {}, moved=moved)),
        )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], *, moved: bool) -> Iterator[str]:
    for column in dict.fromkeys([*one, *other]):
        # Of equal events in two partitions, the first one that was met is the source.
        if one.get(column) != other.get(column) and not (moved and column.startswith("source_")):
            yield column


def _notes(begins: Mapping[Partition, int], *, moved: bool, whole: bool) -> Iterator[str]:
    if begins:
        gone = ", ".join(f"{t}:{p} begins at {low:,}" for (t, p), low in sorted(begins.items()))
        yield f"the log does not begin at 0 ({gone}): earlier events can't be shown"
    if moved:
        yield (
            "the key lies in several partitions of a topic: which of two equal events counts as"
            " the duplicate depends on which one was met first, the row does not"
        )
    if not whole:
        yield "the log behind the views was not read to its end: a transaction may be open"
