"""The only place where the API executes SQL: connections, snapshots, and what their errors mean.

An operation reads one snapshot: one `REPEATABLE READ, READ ONLY` transaction whose first statement
reads the positions and which build is live. The build that the process believes live names the
tables; where the snapshot says otherwise, or the build is gone, the operation is run once more.
Everything here only reads, so running again is always safe.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from api.callers import Caller
from api.errors import BuildGoneError, TimedOutError, UnavailableError
from api.position import Consistency, PartitionState, consistency_of
from api.sql import Sql, name
from views.ddl import CLAIM, CUSTOMER

T = TypeVar("T")
Observe = Callable[[str], None]
"""Called with the text of every statement that is executed."""
Connection = psycopg.AsyncConnection[dict[str, Any]]

_log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 3
RETRY_AFTER_S: Final = 1
_LIVE: Final = "SELECT name FROM ingest.builds WHERE state = 'live'"
_STANDING: Final = """
SELECT b.name AS build, b.change_counter, statement_timestamp() AS read_at,
       p.topic, p.partition, p.next_offset, p.end_offset, p.cluster_id, p.topic_id,
       p.last_event_at, p.complete_as_of
FROM ingest.builds AS b LEFT JOIN {build}.positions AS p ON true
WHERE b.state = 'live'
"""
_CALLER: Final = "SELECT set_config('role', %s, true), set_config(%s, %s, true)"
_VIEWS_KNOWN: Final = """
SELECT v.view FROM ingest.builds AS b JOIN ingest.build_views AS v USING (number)
WHERE b.state = 'live'
"""
_AWAY: Final = "The database cannot be read now. Try again."
_NOT_SET_UP: Final = "The database is not set up: it has no live build."


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderOptions:
    """How the database is read; `acquire_timeout_s` bounds the wait while it is away."""

    dsn: str
    topics: Sequence[str]
    connections: int = 10
    acquire_timeout_s: float = 1.0
    statement_timeout_s: float = 5.0
    guarded: bool = False
    """Sessions begin as a customer without an id: who sets no caller sees no row."""


def ignore(_: str) -> None:
    """Hear of a statement and do nothing."""


class Snapshot:
    """One transaction's view of the database, and what it contains."""

    def __init__(
        self,
        connection: Connection,
        consistency: Consistency,
        observe: Observe,
        *,
        patience_s: float,
    ) -> None:
        self._patience_s = patience_s
        self.consistency = consistency
        self.statements = 1
        self._connection = connection
        self._observe = observe

    @property
    def build(self) -> str:
        """The schema whose tables this snapshot reads."""
        return self.consistency.build

    async def rows(self, sql: Sql) -> list[dict[str, Any]]:
        """Run one SELECT. BuildGoneError, TimedOutError, UnavailableError as their names say."""
        self._observe(sql.text)
        self.statements += 1
        try:
            with _bounded(self._connection, self._patience_s):
                cursor = await self._connection.execute(sql.text.encode(), sql.values)
                return await cursor.fetchall()
        except psycopg.Error as error:
            raise meaning_of(error) from error


class Reader:
    """The door to the database. `observe` hears the text of every statement that is executed."""

    def __init__(self, options: ReaderOptions, *, observe: Observe = ignore) -> None:
        self._options = options
        self._observe = observe
        self._build: str | None = None
        self._pool = AsyncConnectionPool[Connection](
            options.dsn,
            open=False,
            min_size=min(2, options.connections),
            max_size=options.connections,
            timeout=options.acquire_timeout_s,
            # Short, so that a caller's own attempt finds the database within seconds of its return.
            reconnect_timeout=options.acquire_timeout_s,
            max_waiting=options.connections * 20,
            configure=_configure,
            kwargs={
                "row_factory": dict_row,
                "connect_timeout": 3,
                "application_name": "viewkeeper-api",
                "options": _session_options(options),
            },
            name="api",
        )

    async def open(self) -> None:
        """Start connecting, without waiting for it: a process starts while its database is away."""
        await self._pool.open()

    async def close(self) -> None:
        """Give all connections back."""
        await self._pool.close()

    async def read(
        self, work: Callable[[Snapshot], Awaitable[T]], *, caller: Caller | None = None
    ) -> T:
        """Do the work in one snapshot; from the start again if its build or connection went away.

        With a caller, the database shows what that one may see, until the transaction ends.

        UnavailableError: the database cannot be read within a second or so.
        """
        for _ in range(_ATTEMPTS):
            try:
                return await self._once(work, caller)
            except BuildGoneError as error:
                _log.info("an operation is run again", reason=str(error))
                self._build = None
            except _LostError:
                await self._drop_dead_connections()
        raise UnavailableError(_AWAY)

    async def missing_views(self, views: Sequence[str]) -> list[str]:
        """Which of these views the live build does not hold yet."""

        async def work(snapshot: Snapshot) -> list[str]:
            known = {row["view"] for row in await snapshot.rows(Sql(_VIEWS_KNOWN))}
            return [view for view in views if view not in known]

        return await self.read(work)

    async def _once(self, work: Callable[[Snapshot], Awaitable[T]], caller: Caller | None) -> T:
        try:
            async with self._pool.connection() as connection:
                return await work(await self._snapshot(connection, caller))
        except (PoolTimeout, TooManyRequests) as error:
            raise UnavailableError(_AWAY) from error
        except psycopg.Error as error:
            raise meaning_of(error) from error

    async def _snapshot(self, connection: Connection, caller: Caller | None) -> Snapshot:
        try:
            with _bounded(connection, self._options.acquire_timeout_s) as cut:
                build = self._build or await self._live_build(connection)
                rows = await self._standing(connection, build, caller)
        except psycopg.OperationalError as error:
            if connection.closed and not cut.is_set():
                raise _LostError from error
            raise
        if not rows:
            raise UnavailableError(_NOT_SET_UP)
        if rows[0]["build"] != build:
            raise BuildGoneError(build)
        self._build = build
        return Snapshot(
            connection,
            _consistency(rows, self._options.topics),
            self._observe,
            # The server ends a statement itself, unless it does not move any more.
            patience_s=self._options.statement_timeout_s + self._options.acquire_timeout_s,
        )

    async def _standing(
        self, connection: Connection, build: str, caller: Caller | None
    ) -> list[dict[str, Any]]:
        statement = _STANDING.format(build=name(build))
        if caller is None:
            return await self._select(connection, statement)
        # A statement of its own: set inside the one that reads, it would come too late.
        async with connection.pipeline():
            await connection.execute(_CALLER, (caller.database_role, CLAIM, caller.customer_id))
            return await self._select(connection, statement)

    async def _live_build(self, connection: Connection) -> str:
        rows = await self._select(connection, _LIVE)
        if not rows:
            raise UnavailableError(_NOT_SET_UP)
        return str(rows[0]["name"])

    async def _select(self, connection: Connection, statement: str) -> list[dict[str, Any]]:
        self._observe(statement)
        cursor = await connection.execute(statement.encode())
        return await cursor.fetchall()

    async def _drop_dead_connections(self) -> None:
        """A restarted server leaves dead connections behind; one of them tells of all."""
        try:
            async with asyncio.timeout(self._options.acquire_timeout_s):
                await self._pool.check()
        except TimeoutError:
            _log.warning("idle connections could not be checked in time")


@contextmanager
def _bounded(connection: Connection, timeout_s: float) -> Iterator[asyncio.Event]:
    """Cut the connection after a time: a frozen server would let even a cancellation wait.

    What waits on it then fails as on any lost connection; the event says that it was us.
    """
    cut = asyncio.Event()

    def shut() -> None:
        cut.set()
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as copy, suppress(OSError):
            copy.shutdown(socket.SHUT_RDWR)

    handle = asyncio.get_running_loop().call_later(timeout_s, shut)
    try:
        yield cut
    finally:
        handle.cancel()


class _LostError(Exception):
    """The connection was dead before it answered anything. Take another."""


def meaning_of(error: psycopg.Error) -> Exception:
    """What an error of the database means to an operation. Unknown ones stay what they are."""
    match error:
        case psycopg.errors.QueryCanceled():
            return TimedOutError("The answer took longer than allowed. Ask for less.")
        case (
            psycopg.errors.UndefinedTable()
            | psycopg.errors.InvalidSchemaName()
            | psycopg.errors.UndefinedColumn()
            | psycopg.errors.DeadlockDetected()
            | psycopg.errors.SerializationFailure()
        ):
            return BuildGoneError(str(error))
        case psycopg.OperationalError() | psycopg.errors.InsufficientPrivilege():
            _log.error("the database cannot be read", error=str(error), sqlstate=error.sqlstate)
            return UnavailableError(_AWAY)
        case _:
            return error


async def _configure(connection: Connection) -> None:
    await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)


def _session_options(options: ReaderOptions) -> str:
    timeout_ms = int(options.statement_timeout_s * 1000)
    settings = {
        "statement_timeout": timeout_ms,
        "idle_in_transaction_session_timeout": timeout_ms * 4,
        "TimeZone": "UTC",
        **({"role": CUSTOMER} if options.guarded else {}),
    }
    return " ".join(f"-c {setting}={value}" for setting, value in settings.items())


def _consistency(rows: Sequence[dict[str, Any]], topics: Sequence[str]) -> Consistency:
    states = [
        PartitionState(
            topic=row["topic"],
            partition=row["partition"],
            next_offset=row["next_offset"],
            end_offset=row["end_offset"],
            cluster_id=row["cluster_id"],
            topic_id=row["topic_id"],
            last_event_at=row["last_event_at"],
            complete_as_of=row["complete_as_of"],
        )
        for row in rows
        if row["topic"] is not None
    ]
    return consistency_of(
        states,
        topics=topics,
        read_at=rows[0]["read_at"],
        build=rows[0]["build"],
        change_counter=rows[0]["change_counter"],
    )
