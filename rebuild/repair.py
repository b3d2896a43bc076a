"""One key: make its rows on the live build what the log adds up to, where nobody can race it.

Its events are folded by the product's own code into a scratch schema; then, with redrives kept out
and the live positions locked, the last events are read, the rows are overwritten or deleted
without asking for versions, and every aggregate group that they touch is summed anew (a delta
cannot cure a wrong sum). Few rows, but the workers wait meanwhile.
"""

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection
from sqlalchemy import FromClause, Select, column, select, table, tuple_

from ingest.connect import Session, Target
from ingest.consume import Log
from ingest.errors import RefusedError
from ingest.fold import fold
from ingest.operate import Build
from ingest.records import Record
from ingest.settings import IngestSettings
from ingest.write import CHANNEL, apply
from rebuild import builds, checks, swap, turn
from rebuild.builder import VIEWS, Letters, event_forms, open_decoder
from rebuild.builds import Row
from rebuild.feed import Withheld, open_log
from rebuild.keys import Scan, mentioning, of_keys
from views import CATALOGUE, ddl
from views.model import Aggregate, Catalogue, StreamView
from views.positions import TOMBSTONES, Partition, PositionVector
from views.sums import sums

SCRATCH: Final = "repair"
"""The schema that the key is folded in; gone when the command ends."""
_WANTED: Final = 'CREATE TEMPORARY TABLE wanted (key text COLLATE "C" PRIMARY KEY) ON COMMIT DROP'
_MOST_KEYS: Final = 100_000


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
    """Mend the rows of one order, or of all orders and totals of a customer."""
    if (order is None) == (customer is None):
        raise RefusedError("name an order or a customer, and only one of them")
    dsn = settings.database_url.get_secret_value()
    what = f"rebuild --order {order}" if order else f"rebuild --customer {customer}"
    with turn.held(dsn, what) as connection, ExitStack() as stack:
        live = builds.live(connection)
        log = stack.enter_context(closing(open_log(settings)))
        start = checks.look(settings, log, accept_missing=False)
        checks.refuse_other_log(connection, live, start.brokers)
        keys = [order] if order else _orders_of(connection, live, log, customer or "", stop)
        say(f"reading the log for {len(keys):,} orders")
        scan = _scan(connection, live, log, keys, stop)
        stack.enter_context(_scratch(connection))
        scribe = _Scribe(settings, stack, stop)
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '15s'")
            swap.hold_live(connection)
            ends = swap.lock_positions(connection, live.name)
            scan.go_to(ends)
            scribe.letters = _withheld(connection, live, start.topic_ids)
            scribe.write(scan.below(ends))
            changes = _overwrite(connection, live, keys, customer)
    return Repaired(
        build=live.name,
        orders=tuple(keys),
        position=str(PositionVector(ends)),
        changes=tuple(changes),
    )


def _starts(connection: Connection[Row], live: Build) -> dict[Partition, int]:
    return dict.fromkeys(builds.positions(connection, live), 0)


def _scan(
    connection: Connection[Row],
    live: Build,
    log: Log,
    keys: Collection[str],
    stop: threading.Event,
) -> Scan:
    """Everything but the last moment, before anything is locked."""
    scan = Scan(log, _starts(connection, live), of_keys(keys), stop)
    for _ in range(3):
        scan.go_to(builds.positions(connection, live))
    return scan


def _orders_of(
    connection: Connection[Row], live: Build, log: Log, customer: str, stop: threading.Event
) -> list[str]:
    """The orders that are the customer's by the live views, or that the log names with it."""
    rows = connection.execute(
        f"SELECT order_id FROM {live.name}.orders WHERE customer_id = %s", (customer,)
    )
    found = {str(row[0]) for row in rows}
    scan = Scan(log, _starts(connection, live), mentioning(customer), stop)
    scan.go_to(builds.positions(connection, live))
    found |= {record.key.decode(errors="replace") for record in scan.records if record.key}
    if len(found) > _MOST_KEYS:
        raise RefusedError(f"{customer} has {len(found):,} orders: use `viewkeeper rebuild`")
    return sorted(found)


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


@contextmanager
def _scratch(connection: Connection[Row]) -> Iterator[None]:
    """An empty set of tables; one that a killed repair left behind goes first."""
    connection.execute(f"DROP SCHEMA IF EXISTS {SCRATCH} CASCADE")
    connection.execute(f"CREATE SCHEMA {SCRATCH}")
    builds.run_all(connection, ddl.create_tables(SCRATCH))
    yield
    connection.execute(f"DROP SCHEMA {SCRATCH} CASCADE")


class _Scribe:
    """Folds records into the scratch schema by the worker's own code."""

    def __init__(self, settings: IngestSettings, stack: ExitStack, stop: threading.Event) -> None:
        self.letters: Letters = {}
        self._session = Session(
            settings.database_url.get_secret_value(),
            catalogue=Catalogue(CATALOGUE.streams, CATALOGUE.stream_views),
            forms=event_forms(),
            allow_unsafe=settings.allow_unsafe_database,
            target=Target(build=SCRATCH, keeps_dead=False),
        )
        stack.callback(self._session.close)
        self._decoder = open_decoder(settings, stack, self._session.owner, stop)

    def write(self, records: list[Record]) -> None:
        """Decode, fold and write."""
        decoder = Withheld(self._decoder, self.letters)
        items = decoder.decode(records)
        folded = fold(items, advances={}, views=VIEWS)
        with self._session.transaction() as connection:
            apply(connection, self._session.statements, folded)


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
    after = _rows(connection, SCRATCH, view)
    if before == after:
        return []
    names = [f'"{c.name}"' for c in view.table.columns if c.computed is None]
    chosen = f'"{view.key[0]}" IN (SELECT key FROM wanted)'
    columns = ", ".join(names)
    connection.execute(f"DELETE FROM {live.name}.{view.name} WHERE {chosen}")
    connection.execute(
        f"INSERT INTO {live.name}.{view.name} ({columns})"
        f" SELECT {columns} FROM {SCRATCH}.{view.name} WHERE {chosen}"
    )
    return _sentences(view.name, before, after)


def _replace_tombstones(connection: Connection[Row], live: Build) -> None:
    columns = ", ".join(f'"{c.name}"' for c in TOMBSTONES.columns)
    chosen = "key IN (SELECT key FROM wanted)"
    connection.execute(f"DELETE FROM {live.name}.{TOMBSTONES.name} WHERE {chosen}")
    connection.execute(
        f"INSERT INTO {live.name}.{TOMBSTONES.name} ({columns})"
        f" SELECT {columns} FROM {SCRATCH}.{TOMBSTONES.name} WHERE {chosen}"
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
        f" UNION {ddl.text_of(_groups_of(aggregate, SCRATCH))}"
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
