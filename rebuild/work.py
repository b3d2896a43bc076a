"""One call of rebuild or verify: the turn, the build that it fills, and each step of the way.

Stands apart from the pages of `run.py`, which say which steps are taken and in which order.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import psycopg
from psycopg import Connection

from ingest.connect import Target
from ingest.errors import TransientError
from ingest.operate import Build
from ingest.settings import IngestSettings
from rebuild import builds, bulk, checks, compare, redriven, turn
from rebuild.builder import Builder, Letters
from rebuild.builds import Row
from rebuild.checks import Start
from rebuild.feed import open_log
from rebuild.pace import ALONE, Pacer, Yielding
from rebuild.patience import Patience
from rebuild.redriven import Taker
from rebuild.report import Options, Report, Watcher
from rebuild.swap import Swap, already, catch_up
from views.positions import Partition, PositionVector

SNAPSHOT_MOST_S: Final = 3_600.0
"""How long the proof may hold its snapshot of the live build: it keeps vacuum from cleaning up."""
_SNAPSHOT_TIMEOUTS: Final = (
    "transaction_timeout",
    "statement_timeout",
    "idle_in_transaction_session_timeout",
)
"""The first one is of PostgreSQL 17; before it a statement is bounded, and a pause between two."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for by a call, and by whom: `kind` is "rebuild" or "verify"."""

    settings: IngestSettings
    options: Options
    watcher: Watcher
    stop: threading.Event
    kind: str

    @property
    def dsn(self) -> str:
        """The owner's login."""
        return self.settings.database_url.get_secret_value()


class Call:
    """One call of rebuild or verify, over all its tries, and the build that it has begun."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._build: Build | None = None
        self.patience = Patience(asked.watcher.say, asked.stop)
        self.report = Report()

    @contextmanager
    def work(self) -> Iterator["Work"]:
        """The turn, what was looked at, and the build to fill."""
        asked, settings = self._asked, self._asked.settings
        with (
            turn.held(asked.dsn, asked.kind) as connection,
            closing(open_log(settings)) as log,
        ):
            # What this call has begun itself is not thrown away by its next try.
            from_scratch = asked.options.from_scratch and self._build is None
            checks.refuse_database(settings, connection)
            live = builds.live(connection)
            checks.refuse_other_tables(connection, live, is_kept=asked.kind == "rebuild")
            start = checks.look(settings, log, accept_missing=asked.options.accept_missing)
            if not asked.options.other_log:
                checks.refuse_other_log(connection, live, start.brokers)
            self.patience.well()
            self.report = report = Report(live=live.name, notes=start.notes)
            found = _resumable(connection, asked, report, from_scratch=from_scratch)
            if found is None:
                _refuse_no_room(connection, live, start, asked)
                found = builds.create(connection, _maker(asked.kind))
            self._build = found
            builds.begin_at(
                connection,
                found,
                {p: (low, start.brokers[p]) for p, low in start.begins.items()},
            )
            report.build = found.name
            with Work(asked, connection, live, found, start, report) as work:
                yield work

    def was_switched(self) -> bool:
        """Whether an earlier try made its build live, and the answer to its commit was lost."""
        if self._build is None:
            return False
        with builds.open_session(self._asked.dsn, "swap") as connection:
            live = builds.live(connection)
            if live.number != self._build.number:
                return False
            self.report.swapped = already(connection, self.report.live, live)
        return True


def _maker(kind: str) -> str:
    return f"{kind} {builds.code_mark()}"


def _resumable(
    connection: Connection[Row], asked: Asked, report: Report, *, from_scratch: bool
) -> Build | None:
    """The build that a call before this one left, if it may go on; others of its kind go."""
    for left in reversed(builds.unfinished(connection)):
        mine = left.made_by.split(" ")[0] == asked.kind
        same = left.made_by == _maker(asked.kind) and not from_scratch
        if mine and same and redriven.is_clean(connection, left.build.name):
            report.resumed = True
            asked.watcher.say(f"{left.build.name} was begun before: going on with it")
            return left.build
        if mine or left.made_by.startswith("verify "):
            why = "asked for" if from_scratch else "other code made it, or nobody needs it"
            asked.watcher.say(f"{left.build.name} was begun before and is dropped ({why})")
            builds.drop(connection, left.build)
    return None


def _refuse_no_room(connection: Connection[Row], live: Build, start: Start, asked: Asked) -> None:
    events = sum(broker.high for broker in start.brokers.values())
    needed = checks.room_needed_bytes(connection, live, events)
    told = asked.options.free_bytes
    free = told if told is not None else _free_bytes(connection)
    known = "not known from here" if free is None else f"{free / 1e9:,.1f} GB"
    asked.watcher.say(f"disk: about {needed / 1e9:,.2f} GB needed, free: {known}")
    checks.refuse_full_disk(needed, free)


def _free_bytes(connection: Connection[Row]) -> int | None:
    """Free room where the server keeps its data; None: it is elsewhere, or does not tell us."""
    address = connection.info.hostaddr  # none: a socket in a folder
    if address and not ip_address(address).is_loopback:
        return None
    try:
        row = connection.execute("SELECT current_setting('data_directory')").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    if row is None or not Path(row[0]).is_dir():
        return None
    stats = os.statvfs(row[0])
    return stats.f_bavail * stats.f_frsize


class Work:
    """One rebuild under way. As a context manager it lets go of what it has opened."""

    def __init__(
        self,
        asked: Asked,
        connection: Connection[Row],
        live: Build,
        build: Build,
        start: Start,
        report: Report,
    ) -> None:
        self._settings, self._options = asked.settings, asked.options
        self._watcher, self._stop = asked.watcher, asked.stop
        self._dsn = asked.dsn
        self.connection = connection
        self.live = live
        self.build = build
        self._start = start
        self.report = report
        self._target = Target(build=build.name, keeps_dead=asked.kind == "rebuild")
        self._opened = ExitStack()
        self._builder: Builder | None = None
        self.proof: dict[Partition, int] | None = None

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._opened.close()

    @property
    def _partitions(self) -> tuple[Partition, ...]:
        return tuple(sorted(self._start.brokers))

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began_at = time.monotonic()
        yield
        spent = self.report.seconds.get(stage, 0.0) + time.monotonic() - began_at
        self.report.seconds[stage] = round(spent, 2)

    # Build.

    def fill(self) -> None:
        """Fill the build in bulk to where the live one is, and make it whole."""
        if builds.is_whole(self.connection, self.build):
            return
        ends = self._ends()
        with self._timed("bulk"):
            beside = self._load(ends)
        if beside:
            builds.take_one_processor(self.connection)
        self.report.events = sum(ends.values())
        with self._timed("indexes and aggregates"):
            self._watcher.say("aggregates and indexes")
            builds.make_whole(self._dsn, self.connection, self.build, alone=not beside)

    def _ends(self) -> dict[Partition, int]:
        """Where to go: the live positions, or the ends of a log that the live ones are not of."""
        if self._options.other_log:
            return {p: broker.high for p, broker in self._start.brokers.items()}
        return builds.positions(self.connection, self.live)

    def _letters(self, connection: Connection[Row]) -> Letters:
        return builds.letters(connection, self._start.topic_ids)

    def _load(self, ends: Mapping[Partition, int]) -> bool:
        """Fill the build; whether live ingest went on meanwhile."""
        done = sum(builds.positions(self.connection, self.build).values())
        total = sum(ends.values())
        count = bulk.processes_for(
            len({number for _topic, number in self._partitions}),
            total - done,
            self._options.processes,
        )
        load = bulk.Load(
            target=self._target,
            partitions=self._partitions,
            until=ends,
            letters=self._letters(self.connection),
            rate=self._options.rate,
        )
        with (
            builds.open_session(self._dsn, "progress") as connection,
            self._watcher.stage(f"{self.build.name}") as tell,
        ):
            share = LiveShare(connection, self.live)

            def look() -> float:
                tell(sum(builds.positions(connection, self.build).values()), total)
                return share()

            bulk.fill(self._settings, load, processes=count, look=look, stop=self._stop)
            tell(total, total)
            return share() < ALONE

    # Verify.

    def prove(self) -> None:
        """Stop exactly where the live build is in a snapshot, and compare every row."""
        builder = self._builder = self._opened.enter_context(
            Builder(self._settings, self._target, self._partitions, stop=self._stop)
        )
        with (
            Taker(self._settings, self._target, self._stop) as taker,
            builds.open_session(self._dsn, "pace") as beside,
        ):
            share = LiveShare(beside, self.live)
            with self._timed("catch up"):
                pacer = Pacer(self._stop, look=share)
                catch_up(self.connection, builder, self._start.topic_ids, pace=pacer)
            with snapshot(self._dsn) as held, self._timed("verify"):
                self.proof = ends = builds.positions(held, self.live)
                self._stop_at(ends, held, builder)
                taker.take(redriven.missing_from(held, self.build.name))
                self._watcher.say(f"comparing every row at {PositionVector(ends)}")
                new = builds.lacking(held, self.live)
                self.report.notes += [
                    f"{view} is new: {self.live.name} does not hold it, so its rows have nothing to"
                    " be compared with"
                    for view in new
                ]
                with snapshot(self._dsn) as built:
                    beside_live = share() < ALONE
                    if beside_live:
                        for connection in (held, built):
                            builds.take_one_processor(connection)
                    self.report.result = compare.compare(
                        (held, self.live.name),
                        (built, self.build.name),
                        declared=(*self._options.declared, *new),
                        pacer=lambda: Pacer(self._stop, look=share),
                        at_once=1 if beside_live else 2,
                    )
        self.report.position = str(PositionVector(ends))
        self.report.events = max(self.report.events, sum(ends.values()))

    def _stop_at(
        self, ends: Mapping[Partition, int], held: Connection[Row], builder: Builder
    ) -> None:
        """Bring the build there and no further; the snapshot is not held for ever."""
        if not builder.go_to(ends, self._letters(held), within_s=SNAPSHOT_MOST_S):
            raise TransientError(
                f"the build did not come to {PositionVector(ends)} within an hour, and the snapshot"
                " of the live views is held no longer: run it again"
            )

    def throw_away(self) -> None:
        """Drop the build, or say who will: it may be in use, by a backup perhaps."""
        try:
            builds.drop(self.connection, self.build)
        except psycopg.errors.LockNotAvailable:
            self.report.notes.append(
                f"{self.build.name} is in use and could not be dropped: the next call drops it"
            )

    # Swap.

    def swap(self) -> None:
        """Make the build live."""
        swap = Swap(
            self._settings,
            self.build,
            topic_ids=self._start.topic_ids,
            partitions=self._partitions,
            stop=self._stop,
            builder=self._builder,
        )
        with self._timed("swap"):
            if self._options.other_log:
                self.report.swapped = swap.at_once()
            else:
                self.report.swapped = swap.caught_up(
                    proof=self.proof, retry=self._options.retry_letters
                )


@contextmanager
def snapshot(dsn: str) -> Iterator[Connection[Row]]:
    """A connection that sees one moment until it is left."""
    with builds.open_session(dsn, "snapshot") as connection:
        connection.execute(
            "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = ANY (%s)",
            (f"{SNAPSHOT_MOST_S:.0f}s", list(_SNAPSHOT_TIMEOUTS)),
        )
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield connection
        connection.execute("ROLLBACK")


class LiveShare:
    """How much a build may take beside live ingest, asked of the live positions. Any thread."""

    def __init__(self, connection: Connection[Row], live: Build) -> None:
        self._connection = connection
        self._live = live
        self._yielding = Yielding()
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """The share. Lag is what live workers last saw of the ends."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT topic, partition, next_offset, greatest(end_offset - next_offset, 0)"
                f" FROM {self._live.name}.positions"
            ).fetchall()
            positions = {(row[0], row[1]): row[2] for row in rows}
            return self._yielding.share(positions, sum(row[3] or 0 for row in rows))
