"""One key: make its rows on the live build what the log adds up to, where nobody can race it.

All but its last events are folded by the product's own code into temporary tables beforehand; then,
with redrives kept out and the live positions locked, the rest is read, the rows are overwritten or
deleted without asking for versions, and every aggregate group that they touch is summed anew (a
delta cannot cure a wrong sum). The workers wait meanwhile, so that part is short, or it is let go
and tried again.
"""

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection
from sqlalchemy import FromClause, Select, column, select, table, tuple_

from ingest.connect import Session, Target, run_all
from ingest.consume import Log
from ingest.decode import Decoder
from ingest.errors import RefusedError, TransientError
from ingest.fold import fold
from ingest.operate import Build
from ingest.records import Dead, Event, Item, Record
from ingest.settings import IngestSettings
from ingest.write import CHANNEL, apply
from rebuild import builds, checks, swap, turn
from rebuild.builder import VIEWS, Letters, StoppedError, event_forms, open_decoder
from rebuild.builds import Row
from rebuild.feed import open_log
from rebuild.keys import Scan, mentioning, of_keys
from views import CATALOGUE, ddl
from views.model import Aggregate, Catalogue, StreamView
from views.positions import TOMBSTONES, Partition, PositionVector
from views.sums import sums

TRIES: Final = 5
HOLD_LIMITS: Final = {
    "lock_timeout": "5s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "5s",
    "synchronous_commit": "on",
}
"""While the workers wait: what is slow in here, or frozen, is ended by the server."""
_SCRATCH: Final = "pg_temp"
"""Where the keys are folded: tables that nobody else sees, and that go with their session."""
_WANTED: Final = 'CREATE TEMPORARY TABLE wanted (key text COLLATE "C" PRIMARY KEY) ON COMMIT DROP'
_FORMS: Final = event_forms()
_MOST_KEYS: Final = 10_000
_LAST_S: Final = 1.0
"""How long the broker may be silent before the last events, while the workers wait."""
_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What a repair did. `changes` has a sentence for each row that was wrong."""

    build: str
    orders: tuple[str, ...]
    position: str
    changes: tuple[str, ...]


def repair(
    settings: IngestSettings,
    *,
    order: str | None = None,
    customer: str | None = None,
    stop: threading.Event,
    say: Callable[[str], None],
) -> Repaired:
    """Mend the rows of one order, or of all orders and totals of a customer.

    RefusedError: it must not be. TransientError: the last events could not be had in a moment,
    again and again; nothing was changed.
    """
    if (order is None) == (customer is None):
        raise RefusedError("name an order or a customer, and only one of them")
    dsn = settings.database_url.get_secret_value()
    what = f"rebuild --order {order}" if order else f"rebuild --customer {customer}"
    with turn.held(dsn, what) as connection, ExitStack() as stack:
        live = builds.live(connection)
        checks.refuse_other_tables(connection, live, is_kept=True)
        log = stack.enter_context(closing(open_log(settings)))
        start = checks.look(settings, log, accept_missing=False)
        checks.refuse_other_log(connection, live, start.brokers)
        decoder = open_decoder(settings, stack, what, stop)
        keys = (
            [order] if order else _orders_of(connection, live, log, decoder, customer or "", stop)
        )
        say(f"reading the log for {len(keys):,} orders")
        scan = Scan(log, _starts(connection, live), of_keys(keys), stop)
        mend = _Mend(settings, decoder, live, start.topic_ids, keys, customer)
        for tried in range(TRIES):
            before = _read_on(connection, live, scan)
            try:
                return mend.once(scan, before)
            except TransientError as error:
                if tried + 1 == TRIES:
                    raise
                say(f"let go, and trying again: {error}")
            if stop.wait(_PAUSE_S):
                raise StoppedError
    raise AssertionError("the last try returns or raises")


def _starts(connection: Connection[Row], live: Build) -> dict[Partition, int]:
    return dict.fromkeys(builds.positions(connection, live), 0)


def _read_on(connection: Connection[Row], live: Build, scan: Scan) -> dict[Partition, int]:
    """Read everything but the last moment; up to where."""
    for _ in range(3):
        ends = builds.positions(connection, live)
        scan.go_to(ends)
    return ends


def _orders_of(
    connection: Connection[Row],
    live: Build,
    log: Log,
    decoder: Decoder,
    customer: str,
    stop: threading.Event,
) -> list[str]:
    """The orders that are the customer's by the live views, or were by an event of the log."""
    rows = connection.execute(
        f"SELECT order_id FROM {live.name}.orders WHERE customer_id = %s", (customer,)
    )
    found = {str(row[0]) for row in rows}
    scan = Scan(log, _starts(connection, live), mentioning(customer), stop)
    scan.go_to(builds.positions(connection, live))
    for item in decoder.decode(scan.records):
        if isinstance(item, Event) and _column(item, "customer_id") == customer:
            found.add(str(item.key[0]))
    if len(found) > _MOST_KEYS:
        raise RefusedError(f"{customer} has {len(found):,} orders: use `viewkeeper rebuild`")
    return sorted(found)


def _column(event: Event, name: str) -> Any:
    columns = _FORMS[event.record.topic].columns
    return event.row[columns.index(name)] if name in columns else None


def _withheld(connection: Connection[Row], live: Build, topic_ids: list[str]) -> Letters:
    """Dead letters that the live build has not taken in: their events stay out here too."""
    listed = {
        (row[0], row[1], row[2])
        for row in connection.execute(
            'SELECT d.topic, d.partition, d."offset" FROM ingest.dead_letters d'
            f" JOIN {live.name}.applied_dead_letters l"
            ' USING (topic_id, partition, "offset")'
        )
    }
    return {
        place: {offset: why for offset, why in found.items() if (*place, offset) not in listed}
        for place, found in builds.letters(connection, topic_ids).items()
    }


class _Mend:
    """Folds the keys' events into temporary tables, and puts the rows into the live build."""

    def __init__(
        self,
        settings: IngestSettings,
        decoder: Decoder,
        live: Build,
        topic_ids: list[str],
        keys: Collection[str],
        customer: str | None,
    ) -> None:
        self._settings = settings
        self._decoder = decoder
        self._live = live
        self._topic_ids = topic_ids
        self._keys = keys
        self._customer = customer
        self._written: set[tuple[str, int, int]] = set()

    def once(self, scan: Scan, before: Mapping[Partition, int]) -> Repaired:
        """One try, in a session of its own: what is below `before`, then the rest under locks."""
        self._written.clear()
        with self._session() as session:
            with session.transaction() as connection:
                run_all(connection, ddl.create_tables(_SCRATCH))
                self._write(connection, session, scan.below(before))
            with session.transaction() as connection:
                for name, value in HOLD_LIMITS.items():
                    connection.execute("SELECT set_config(%s, %s, true)", (name, value))
                if swap.hold_live(connection) != self._live.name:
                    raise RefusedError("another build went live meanwhile: run it again")
                ends = swap.lock_positions(connection, self._live.name)
                if not scan.read_on(ends, _LAST_S):
                    raise TransientError("the broker was slow with the last events")
                self._write(connection, session, scan.below(ends))
                changes = _overwrite(connection, self._live, self._keys, self._customer)
        return Repaired(
            build=self._live.name,
            orders=tuple(self._keys),
            position=str(PositionVector(ends)),
            changes=tuple(changes),
        )

    @contextmanager
    def _session(self) -> Iterator[Session]:
        session = Session(
            self._settings.database_url.get_secret_value(),
            catalogue=Catalogue(CATALOGUE.streams, CATALOGUE.stream_views),
            forms=_FORMS,
            allow_unsafe=self._settings.allow_unsafe_database,
            target=Target(build=_SCRATCH, keeps_dead=False),
        )
        with closing(session):
            yield session

    def _write(
        self, connection: Connection[Row], session: Session, records: Collection[Record]
    ) -> None:
        """Decode, fold and write what was not yet; what is withheld may be redriven until later."""
        letters = _withheld(connection, self._live, self._topic_ids)
        fresh = [
            record
            for record in records
            if _place(record) not in self._written
            and record.offset not in letters.get((record.topic, record.partition), ())
        ]
        self._written.update(_place(record) for record in fresh)
        folded = fold(self._decoded(fresh), advances={}, views=VIEWS)
        apply(connection, session.statements, folded)

    def _decoded(self, records: Sequence[Record]) -> list[Item]:
        items = self._decoder.decode(records)
        if self._decoder.decode_again(items, afresh=True):
            self._decoder.decode_again(items, afresh=False)
        for item in items:
            if isinstance(item, Dead):
                raise RefusedError(
                    f"{':'.join(map(str, _place(item.record)))} is in the live views, but can't be"
                    f" decoded now: {item.fault}. Nothing was changed."
                )
        return items


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


def _overwrite(
    connection: Connection[Row], live: Build, keys: Collection[str], customer: str | None
) -> list[str]:
    """Put the right rows in the place of those that are there; a sentence per row that changed."""
    connection.execute(_WANTED)
    with connection.cursor() as cursor, cursor.copy("COPY wanted FROM STDIN") as copy:
        for key in keys:
            copy.write_row((key,))
    for aggregate in CATALOGUE.aggregates:
        _note_groups(connection, live, aggregate, customer)
    changes = []
    for view in CATALOGUE.stream_views:
        changes += _replace_rows(connection, live, view)
    _replace_tombstones(connection, live)
    for aggregate in CATALOGUE.aggregates:
        changes += _replace_groups(connection, live, aggregate)
    if changes:
        connection.execute(
            "UPDATE ingest.builds SET change_counter = change_counter + 1 WHERE name = %s",
            (live.name,),
        )
        connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, live.name))
    return changes


def _rows(
    connection: Connection[Row], build: str, view: StreamView
) -> dict[tuple[str, ...], dict[str, Any]]:
    return _images(
        connection,
        f"SELECT row_to_json(t)::text FROM {build}.{view.name} t"
        f' WHERE t."{view.key[0]}" IN (SELECT key FROM wanted)',
        view.key,
    )


def _images(
    connection: Connection[Row], query: str, key: tuple[str, ...]
) -> dict[tuple[str, ...], dict[str, Any]]:
    found = [
        json.loads(row[0], parse_float=str, parse_int=str) for row in connection.execute(query)
    ]
    return {tuple(str(row[name]) for name in key): row for row in found}


def _replace_rows(connection: Connection[Row], live: Build, view: StreamView) -> list[str]:
    before = _rows(connection, live.name, view)
    after = _rows(connection, _SCRATCH, view)
    if before == after:
        return []
    names = [f'"{c.name}"' for c in view.table.columns if c.computed is None]
    chosen = f'"{view.key[0]}" IN (SELECT key FROM wanted)'
    columns = ", ".join(names)
    connection.execute(f"DELETE FROM {live.name}.{view.name} WHERE {chosen}")
    connection.execute(
        f"INSERT INTO {live.name}.{view.name} ({columns})"
        f" SELECT {columns} FROM {_SCRATCH}.{view.name} WHERE {chosen}"
    )
    return _sentences(view.name, before, after)


def _replace_tombstones(connection: Connection[Row], live: Build) -> None:
    columns = ", ".join(f'"{c.name}"' for c in TOMBSTONES.columns)
    chosen = "key IN (SELECT key FROM wanted)"
    connection.execute(f"DELETE FROM {live.name}.{TOMBSTONES.name} WHERE {chosen}")
    connection.execute(
        f"INSERT INTO {live.name}.{TOMBSTONES.name} ({columns})"
        f" SELECT {columns} FROM {_SCRATCH}.{TOMBSTONES.name} WHERE {chosen}"
    )


# Aggregates: the groups of the rows as they are and as they should be, summed anew.


def _groups_of(aggregate: Aggregate, build: str) -> Select[Any]:
    """The groups that the wanted rows of a build belong to."""
    source = ddl.table_of(aggregate.source, build)
    wanted: Select[Any] = select(column("key")).select_from(table("wanted"))
    chosen = source.c[aggregate.source.key[0]].in_(wanted)
    rows: FromClause = select(source).where(chosen).subquery()
    added = aggregate.contributions(rows).subquery()
    return select(*(added.c[name] for name in aggregate.key)).distinct()


def _note_groups(
    connection: Connection[Row], live: Build, aggregate: Aggregate, customer: str | None
) -> None:
    name = _groups_name(aggregate)
    connection.execute(
        f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS"
        f" {ddl.text_of(_groups_of(aggregate, live.name))}"
        f" UNION {ddl.text_of(_groups_of(aggregate, _SCRATCH))}"
    )
    if customer is not None and "customer_id" in aggregate.key:
        keys = ", ".join(aggregate.key)
        connection.execute(
            f"INSERT INTO {name} SELECT {keys} FROM {live.name}.{aggregate.name}"
            f" WHERE customer_id = %s EXCEPT SELECT {keys} FROM {name}",
            (customer,),
        )


def _groups_name(aggregate: Aggregate) -> str:
    return f"groups_{aggregate.name}"


def _replace_groups(connection: Connection[Row], live: Build, aggregate: Aggregate) -> list[str]:
    target = f"{live.name}.{aggregate.name}"
    keys = ", ".join(aggregate.key)
    chosen = f"({keys}) IN (SELECT {keys} FROM {_groups_name(aggregate)})"
    shown = f"SELECT row_to_json(t)::text FROM {target} t WHERE {chosen}"
    before = _images(connection, shown, aggregate.key)
    totals = sums(aggregate, ddl.table_of(aggregate.source, live.name)).subquery("total")
    names = [c.name for c in aggregate.table.columns]
    groups = table(_groups_name(aggregate), *(column(name) for name in aggregate.key))
    right = (
        select(*(totals.c[name] for name in names))
        .where(totals.c[aggregate.members] != 0)
        .where(
            tuple_(*(totals.c[name] for name in aggregate.key)).in_(
                select(*(groups.c[name] for name in aggregate.key))
            )
        )
    )
    connection.execute(f"DELETE FROM {target} WHERE {chosen}")
    connection.execute(f"INSERT INTO {target} ({', '.join(names)}) {ddl.text_of(right)}")
    return _sentences(aggregate.name, before, _images(connection, shown, aggregate.key))


def _sentences(
    view: str,
    before: Mapping[tuple[str, ...], Mapping[str, Any]],
    after: Mapping[tuple[str, ...], Mapping[str, Any]],
) -> list[str]:
    lines = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        name = f"{view} {' '.join(key)}"
        if old is None:
            lines.append(f"{name}: was missing")
        elif new is None:
            lines.append(f"{name}: was one too many")
        else:
            changed = [f"{n} {old[n]} -> {new[n]}" for n in old if old[n] != new[n]]
            lines.append(f"{name}: {', '.join(changed)}")
    return lines
