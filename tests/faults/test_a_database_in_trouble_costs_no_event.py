"""PostgreSQL fails in its own ways under load: no event is lost, doubled or a dead letter."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground
from tests.faults.harness.workers import WorkerProcess
from tests.fixtures.disks import fill, small_disk
from tests.fixtures.waiting import PATIENCE_S, eventually

TIMES: Final = 3
_S: Final = PATIENCE_S
_OURS: Final = "application_name LIKE 'viewkeeper ingest%'"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a harm works with: the server as its superuser, and a worker that is at work."""

    field: Field
    ground: Ground
    worker: WorkerProcess

    @property
    def database(self) -> str:
        return self.ground.place.dsn.rpartition("/")[2]

    def connect(self) -> psycopg.Connection[Any]:
        """A stranger's session, who may do anything."""
        return psycopg.connect(self.field.stack.postgres.dsn(self.database), autocommit=True)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(query.encode()).fetchall()

    def change(self, change: str) -> None:
        """`ALTER DATABASE` ours."""
        statement = sql.SQL("ALTER DATABASE {} " + change)
        self.field.stack.postgres.execute(statement.format(sql.Identifier(self.database)))

    def end_sessions(self) -> None:
        """End every session of the worker's: new ones see what was changed."""
        self.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = current_database() AND {_OURS}"
        )

    def named(self, words: str) -> None:
        """Return when the worker says that this is what it waits for."""
        eventually(
            lambda: any(words in problem for problem in self.worker.problems()),
            _S,
            f"it says {words!r}; it says {self.worker.problems()}",
        )

    def said(self, words: str) -> None:
        """Return when this stands in its log."""
        eventually(lambda: words in self.worker.log, _S, f"it has said {words!r}")


@contextmanager
def _rows_held(trouble: Trouble, topic: str, partition: int) -> Iterator[psycopg.Connection[Any]]:
    """A stranger holds a position row, and the worker waits for it."""
    with trouble.connect() as stranger:
        stranger.execute("SET deadlock_timeout = '60s'")  # whoever waits here is not the victim
        stranger.execute("BEGIN")
        stranger.execute(
            "SELECT FROM build_1.positions WHERE topic = %s AND partition = %s FOR UPDATE",
            (topic, partition),
        )
        eventually(lambda: _blocked(stranger), _S, "the worker waits for the row")
        yield stranger
        stranger.execute("ROLLBACK")


def _blocked(stranger: psycopg.Connection[Any]) -> list[int]:
    stranger.execute("SELECT pg_stat_clear_snapshot()")  # what is read once stays for a transaction
    rows = stranger.execute(
        "SELECT pid FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        f" AND {_OURS}".encode()
    ).fetchall()
    return [pid for (pid,) in rows]


# The harms. Each heals itself.


def backends_killed(trouble: Trouble) -> int:
    """SIGKILL of a backend of the worker's, again and again: each time the server starts over."""
    ours = f"SELECT pid FROM pg_stat_activity WHERE {_OURS}"
    for _ in range(TIMES):
        with trouble.connect() as bystander:
            (pid,) = eventually(lambda: trouble.ask(ours), _S, "the worker is connected")[0]
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: _is_cut(bystander), _S, "the server has let everybody go")
        eventually(trouble.field.stack.postgres.answers, _S, "the server is back")
        trouble.ground.wait_for_progress(20)
    return TIMES


def _is_cut(bystander: psycopg.Connection[Any]) -> bool:
    """A server of which one process was killed ends all the others."""
    try:
        bystander.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def stopped_at_once(trouble: Trouble) -> int:
    """Immediate stop: no checkpoint, no good-bye."""
    server = trouble.field.stack.postgres
    server.stop("immediate")
    stopped = not server.process.running
    server.start()
    return int(stopped)


def killed(trouble: Trouble) -> int:
    """SIGKILL of the postmaster, again and again."""
    server, gone = trouble.field.stack.postgres, 0
    for _ in range(TIMES):
        server.kill()
        gone += not server.process.running
        server.start()
        trouble.ground.wait_for_progress(20)
    return gone


def read_only(trouble: Trouble) -> int:
    """The database takes no writes."""
    trouble.change("SET default_transaction_read_only = on")
    trouble.end_sessions()
    trouble.named("read-only transaction")
    trouble.change("RESET default_transaction_read_only")
    return 1


def no_connections_left(trouble: Trouble) -> int:
    """Its connections are cut, and there is none to be had."""
    trouble.change("CONNECTION LIMIT 0")
    trouble.end_sessions()
    trouble.named("too many connections")
    trouble.change("CONNECTION LIMIT -1")
    return 1


def deadlock(trouble: Trouble) -> int:
    """A stranger takes the rows of a batch in the other order; the batch is the victim."""
    with _rows_held(trouble, "payments", 2):
        trouble.ground.wait_for_backlog(300)
    for _ in range(10):
        with _rows_held(trouble, "payments", 2) as stranger:
            trouble.ground.wait_for_backlog(100)
            stranger.execute("SELECT FROM build_1.positions WHERE topic = 'orders' FOR UPDATE")
        if "deadlock detected" in trouble.worker.log:
            break
    trouble.said("deadlock detected")
    return 1


def statement_cancelled(trouble: Trouble) -> int:
    """A statement is ended in mid-batch, as a statement timeout does it (SQLSTATE 57014)."""
    ended = 0
    for _ in range(TIMES):
        with _rows_held(trouble, "orders", 0) as stranger:
            ended += _cancel(stranger, _blocked(stranger))
    trouble.said("57014")
    return ended


def _cancel(stranger: psycopg.Connection[Any], pids: list[int]) -> int:
    """How many statements were ended."""
    for pid in pids:
        stranger.execute("SELECT pg_cancel_backend(%s)", (pid,))
    eventually(lambda: not set(pids) & set(_blocked(stranger)), _S, "their statements have ended")
    return len(pids)


def locked_for_long(trouble: Trouble) -> int:
    """A stranger holds a row for longer than the worker waits for a lock (SQLSTATE 55P03)."""
    with _rows_held(trouble, "orders", 0):
        trouble.said("55P03")
    return 1


def disk_full(trouble: Trouble) -> int:
    """The file system of the largest view is full (SQLSTATE 53100)."""
    home = trouble.field.stack.postgres.home
    small = small_disk(home / f"disk-{trouble.database}", like=home)
    with small as disk, trouble.connect() as stranger:
        stranger.execute(f"CREATE TABLESPACE tiny LOCATION '{disk / 'space'}'".encode())
        stranger.execute("ALTER TABLE build_1.orders SET TABLESPACE tiny")
        fill(disk / "filler")
        trouble.named("53100")
        (disk / "filler").unlink()
        trouble.ground.wait_for_progress(20)
        stranger.execute("ALTER TABLE build_1.orders SET TABLESPACE pg_default")
        stranger.execute("DROP TABLESPACE tiny")
    return 1


Harm = Callable[[Trouble], int]
HARMS: Final[Mapping[str, Harm]] = {
    "backends killed in a loop": backends_killed,
    "immediate stop": stopped_at_once,
    "postmaster killed in a loop": killed,
    "read-only": read_only,
    "no connections left": no_connections_left,
    "deadlock": deadlock,
    "statement ended in mid-batch": statement_cancelled,
    "disk full": disk_full,
}


def _suffer(harm: Harm, kind: str, *, field: Field, ground: Ground) -> None:
    trickle = ground.trickle(ground.traffic(4_000, seed=41), per_s=150)
    worker = ground.worker()
    ground.wait_for_progress(50)
    ground.bites.bit(kind, harm(Trouble(field, ground, worker)))
    trickle.stop()
    ground.must_be_right()
    ground.wait_ready(worker)


@pytest.mark.parametrize("kind", HARMS)
def test_a_database_in_trouble_costs_no_event(field: Field, ground: Ground, kind: str) -> None:
    _suffer(HARMS[kind], kind, field=field, ground=ground)


@pytest.mark.proof
def test_a_row_that_is_locked_for_long_costs_no_event(field: Field, ground: Ground) -> None:
    _suffer(locked_for_long, "locked for longer than the lock timeout", field=field, ground=ground)
