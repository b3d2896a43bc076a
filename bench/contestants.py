"""Who takes part in the ingest benchmark: how each is prepared, run, and checked.

Stands apart from the measuring so that a contestant is a declaration. All of them read the same
topics from the first offset into a database of their own; what each must have written in the end
is counted, so that none can win by leaving something out.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from bench import floor
from bench.eventlog import TOPICS, EventLog
from bench.peers import peers_python
from bench.stage import Database, Stage, script
from views.positions import PositionVector


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contestant."""

    stage: Stage
    log: EventLog
    database: Database

    @property
    def group(self) -> str:
        """A consumer group of its own."""
        return f"group-{self.database.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A program that reads the log into a database and ends by itself.

    `prepare` runs off the clock. `schema` is where its tables `orders` and `payments` lie; it
    `keeps` either the latest row per key or every event.
    """

    name: str
    does: str
    prepare: Callable[[Run], None]
    command: Callable[[Run], list[str]]
    settings: Callable[[Run], Mapping[str, str]] = field(default=lambda _: {})
    schema: str = "public"
    keeps_latest: bool = True


def position_of(log: EventLog) -> str:
    """The end of the log as a position vector."""
    return str(PositionVector(log.next_offsets))


def _worker_settings(run: Run) -> dict[str, str]:
    return {
        "VIEWKEEPER_DATABASE_URL": run.database.dsn,
        "VIEWKEEPER_GROUP_ID": run.group,
        "VIEWKEEPER_OPS_PORT": "0",
    }


WORKER: Final = Contestant(
    name="viewkeeper",
    does="four views, fenced positions, checks and dead letters in one transaction",
    prepare=lambda run: run.stage.migrate(run.database),
    command=lambda run: [str(script("viewkeeper")), "ingest", "--until", position_of(run.log)],
    settings=_worker_settings,
    schema="build_1",
)

FLOOR: Final = Contestant(
    name="naive floor",
    does="fastavro one by one, COPY and upsert of two plain tables, nothing else",
    prepare=lambda run: floor.create_tables(run.database.dsn),
    command=lambda run: [sys.executable, "-m", "bench.floor", *_arguments(run)],
)

QUIX: Final = Contestant(
    name="Quix Streams",
    does="its PostgreSQL sink, two raw tables that every event is appended to",
    prepare=lambda _: None,
    command=lambda run: [
        *(str(peers_python()), "-I", str(Path(__file__).with_name("quix.py"))),
        *_arguments(run),
        *("--registry", run.stage.registry.url),
    ],
    keeps_latest=False,
)


def _arguments(run: Run) -> list[str]:
    return [
        *("--bootstrap-servers", run.stage.kafka.bootstrap_servers),
        *("--dsn", run.database.dsn),
        *("--group", run.group),
        *("--events", str(run.log.events)),
    ]


def check(database: Database, log: EventLog, *, schema: str, keeps_latest: bool) -> None:
    """Raise unless the tables hold what must come of the log."""
    with psycopg.connect(database.dsn) as connection:
        for topic in TOPICS:
            found = connection.execute(
                f"SELECT count(*), sum(version)::bigint FROM {schema}.{topic}"
            ).fetchone()
            rows, versions = found or (0, 0)
            wanted = log.expected.totals(topic) if keeps_latest else None
            if (wanted and wanted != (rows, versions)) or (
                wanted is None and rows != log.expected.events[topic]
            ):
                raise RuntimeError(
                    f"{database.name}: {schema}.{topic} holds {rows} rows, versions adding up to "
                    f"{versions}; it must be {wanted or log.expected.events[topic]}"
                )
