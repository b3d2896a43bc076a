"""Builds as things that are made, finished, switched and dropped: the statements, each whole.

Stands apart from the pages (`run.py`, `swap.py`) that decide when.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from psycopg import Connection
from psycopg.sql import Literal

import ingest
import schemas
import views
from ingest import operate
from ingest.claim import BrokerView
from ingest.connect import connect, run_all
from ingest.errors import Reason
from ingest.operate import Build
from ingest.statements import hide_removed
from rebuild.builder import Letters
from views import CATALOGUE, ddl
from views.model import Aggregate
from views.positions import Partition, PositionVector, parse_position

APPLICATION: Final = "viewkeeper rebuild"
"""How the server knows our sessions. Not the workers' name: they end only each other."""

FINISHING: Final = "finish"
"""The purpose of sessions that make a build whole beside the one that holds the turn."""

LOCK_WAIT_S: Final = 15
_PROVED_AT: Final = "compared with the live build at "

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A build that a killed rebuild or verify left behind."""

    build: Build
    made_by: str


def open_session(dsn: str, purpose: str) -> Connection[Row]:
    """A connection in autocommit, in UTC, that waits for no lock for ever and holds none idle."""
    connection = connect(dsn, f"{APPLICATION} {purpose}")
    connection.autocommit = True
    connection.execute(
        "SELECT set_config('timezone', 'UTC', false), set_config('lock_timeout', %s, false),"
        " set_config('idle_in_transaction_session_timeout', '30s', false)",
        (f"{LOCK_WAIT_S}s",),
    )
    return connection


def take_one_processor(connection: Connection[Row]) -> None:
    """From now on the server uses no parallel workers for this session."""
    run_all(
        connection,
        ("SET max_parallel_workers_per_gather = 0", "SET max_parallel_maintenance_workers = 0"),
    )


def code_mark() -> str:
    """A mark of the code that decides what rows become: a build is resumed only by the same."""
    digest = hashlib.sha256()
    for room in (views, ingest, schemas):
        (folder,) = room.__path__
        for path in sorted(Path(folder).iterdir()):
            if path.suffix in (".py", ".avsc"):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def unfinished(connection: Connection[Row]) -> list[Unfinished]:
    """Builds that are neither served nor kept."""
    rows = connection.execute(
        "SELECT number, name, state, made_by FROM ingest.builds"
        " WHERE state IN ('building', 'ready') ORDER BY number"
    )
    return [
        Unfinished(build=Build(number=number, name=name, state=state), made_by=made_by)
        for number, name, state, made_by in rows
    ]


def previous(connection: Connection[Row]) -> list[Build]:
    """The builds that were live before, the last one first."""
    rows = connection.execute(
        "SELECT number, name, state FROM ingest.builds WHERE state = 'previous'"
        " ORDER BY live_since_at DESC NULLS LAST, number DESC"
    )
    return [Build(number=number, name=name, state=state) for number, name, state in rows]


def create(connection: Connection[Row], made_by: str) -> Build:
    """A new, empty build: its schema and tables with primary keys, no other index yet."""
    with connection.transaction():
        connection.execute("LOCK TABLE ingest.builds IN SHARE ROW EXCLUSIVE MODE")
        row = connection.execute(
            "INSERT INTO ingest.builds (number, state, made_by)"
            " SELECT coalesce(max(number), 0) + 1, 'building', %s FROM ingest.builds"
            " RETURNING number, name",
            (made_by,),
        ).fetchone()
        assert row is not None
        build = Build(number=row[0], name=row[1], state="building")
        run_all(connection, ddl.create_schema(build.name))
        run_all(connection, ddl.create_tables(build.name))
    return build


def drop(connection: Connection[Row], build: Build) -> None:
    """Remove a build that is not live, with everything in it."""
    with connection.transaction():
        gone = connection.execute(
            "DELETE FROM ingest.builds WHERE number = %s AND state <> 'live' RETURNING name",
            (build.number,),
        ).fetchone()
        if gone is not None:
            connection.execute(f"DROP SCHEMA IF EXISTS {build.name} CASCADE")


def is_whole(connection: Connection[Row], build: Build) -> bool:
    """Whether the build has its indexes and aggregates: from here on it is kept by deltas."""
    return not lacking(connection, build)


def lacking(connection: Connection[Row], build: Build) -> list[str]:
    """The views of the catalogue that a build does not hold: they came after it was made."""
    rows = connection.execute(
        "SELECT view FROM ingest.build_views WHERE number = %s", (build.number,)
    )
    known = {row[0] for row in rows}
    return [view.name for view in CATALOGUE.views if view.name not in known]


def make_whole(dsn: str, connection: Connection[Row], build: Build, *, alone: bool) -> None:
    """Roll up, hide, sum the aggregates, make the indexes, let readers in: once, after the bulk.

    Whoever still fills the build in bulk is fenced: it would leave sums behind. Every step may be
    done again after a kill. `alone`: whether it may use more than one processor.
    """

    def run(statements: Sequence[str]) -> None:
        with open_session(dsn, FINISHING) as session:
            if not alone:
                take_one_processor(session)
            run_all(session, statements)

    meanwhile, behind = _finishing(build.name)
    with ThreadPoolExecutor(2 if alone else 1) as at_once:
        with connection.transaction():
            connection.execute(f"UPDATE {build.name}.positions SET owner_epoch = owner_epoch + 1")
            begun = [at_once.submit(run, statements) for statements in meanwhile if alone]
            for view in CATALOGUE.stream_views:
                run_all(connection, ddl.roll_up(view, build.name))
                run_all(connection, hide_removed(build.name, view))
        for each in begun:
            each.result()
        for stage in (behind,) if alone else (meanwhile, behind):
            list(at_once.map(run, stage))
    with connection.transaction():
        # Policies lock the tables, rights do not. The other way round, a table's autovacuum that
        # began in between waits for our change of its row in pg_class, and we wait for its lock.
        for each_view in CATALOGUE.views:
            run_all(connection, ddl.row_policies(each_view, build.name))
            connection.execute(
                "INSERT INTO ingest.build_views (number, view) VALUES (%s, %s)"
                " ON CONFLICT DO NOTHING",
                (build.number, each_view.name),
            )
        run_all(connection, ddl.grant_reading(build.name, [v.name for v in CATALOGUE.views]))


def _finishing(build: str) -> tuple[list[list[str]], list[list[str]]]:
    """What can be done while rows are rolled up, and what has to wait for that. Each list in turn,
    the lists of a stage at once.

    A table that is rolled up is analyzed meanwhile: that takes as long as all its indexes, and
    PostgreSQL does not do both at a time.
    """
    meanwhile, sums, indexes = [], [], []
    for view in CATALOGUE.views:
        made = ddl.create_indexes(build, of=view.name)
        analyze = ddl.analyze(view, build)
        if isinstance(view, Aggregate):
            empty = f"DELETE FROM {build}.{view.name}"
            sums.append([empty, ddl.fill(view, build), *made, analyze])
        elif view.rollup is None:
            meanwhile.append([*made, analyze])
        else:
            meanwhile.append([analyze])
            indexes += [[index] for index in made]
    return meanwhile, [*sums, *indexes]  # the longest first


def mark_ready(
    connection: Connection[Row], build: Build, proof: Mapping[Partition, int] | None
) -> None:
    """The build was compared at a position, or can't be.

    The position is kept as the comment of the build's schema: it goes with the build, and people
    see it where they list schemas.
    """
    with connection.transaction():
        connection.execute(
            "UPDATE ingest.builds SET state = 'ready' WHERE number = %s AND state = 'building'",
            (build.number,),
        )
        if proof is not None:
            said = f"{_PROVED_AT}{PositionVector(proof)}"
            connection.execute(f"COMMENT ON SCHEMA {build.name} IS {Literal(said).as_string()}")


def proof_of(connection: Connection[Row], build: Build) -> Mapping[Partition, int] | None:
    """The position at which a build was last compared with the live one; None: it never was."""
    row = connection.execute(
        "SELECT obj_description(%s::regnamespace, 'pg_namespace')", (build.name,)
    ).fetchone()
    said = None if row is None else row[0]
    if said is None or not said.startswith(_PROVED_AT):
        return None
    return parse_position(said.removeprefix(_PROVED_AT)).next_offsets


def positions(connection: Connection[Row], build: Build) -> dict[Partition, int]:
    """The next offset of each partition of a build."""
    rows = connection.execute(f"SELECT topic, partition, next_offset FROM {build.name}.positions")
    return {(topic, partition): offset for topic, partition, offset in rows}


def begin_at(
    connection: Connection[Row], build: Build, starts: Mapping[Partition, tuple[int, BrokerView]]
) -> None:
    """Let partitions begin behind what their log no longer has."""
    for (topic, partition), (offset, broker) in sorted(starts.items()):
        connection.execute(
            (
                f"INSERT INTO {build.name}.positions"
                " (topic, partition, next_offset, cluster_id, topic_id)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
            ),
            (topic, partition, offset, broker.cluster_id, broker.topic_id),
        )


def letters(
    connection: Connection[Row],
    topic_ids: Sequence[str],
    *,
    above: Mapping[Partition, int] | None = None,
) -> Letters:
    """Every dead letter on record of these topics, whatever its state.

    With `above` only those from these offsets on, of the partitions that it names.
    """
    found: dict[Partition, dict[int, Reason]] = {}
    query = 'SELECT d.topic, d.partition, d."offset", d.reason FROM ingest.dead_letters d'
    where = " WHERE d.topic_id = ANY (%s)"
    values: list[object] = [list(topic_ids)]
    if above is not None:
        query += (
            " JOIN unnest(%s::text[], %s::int[], %s::bigint[]) AS p (topic, partition, first)"
            ' ON p.topic = d.topic AND p.partition = d.partition AND d."offset" >= p.first'
        )
        places = sorted((topic, number, first) for (topic, number), first in above.items())
        values = [*(list(column) for column in zip(*places, strict=True)), *values]
        if not places:
            return found
    for topic, partition, offset, reason in connection.execute(query + where, values):
        found.setdefault((topic, partition), {})[offset] = Reason(reason)
    return found


def live(connection: Connection[Row]) -> Build:
    """The build that is served. UnknownThingError: there is none."""
    return operate.live_build(connection)


def size_bytes(connection: Connection[Row], build: Build) -> int:
    """What the tables and indexes of a build take on disk."""
    row = connection.execute(
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind = 'r'",
        (build.name,),
    ).fetchone()
    assert row is not None
    return int(row[0])
