"""Where the API executes SQL: connections, snapshots, and what their errors mean.

An operation reads one snapshot: one statement (`answer`), or one `REPEATABLE READ, READ ONLY`
transaction whose first statement reads where the views stand (`read`). The build that the process
believes live names the tables; where the snapshot says otherwise, or the build is gone, the
operation is run once more. Everything here only reads, so running again is always safe.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow, dict_row, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from api.callers import Caller
from api.direct import DirectConnection
from api.errors import (
    ApiError,
    BuildGoneError,
    TimedOutError,
    TooComplexError,
    UnavailableError,
)
from api.login import Strength
from api.position import Consistency
from api.pulse import Connection, Cut, Pulse
from api.session import Opening, Session
from api.spans import span
from api.sql import Sql
from api.standing import COLUMNS, FROM_LIVE, standing_of, standing_sql

T = TypeVar("T")
Statement = Callable[[str], tuple[str, Sequence[Any]]]
"""From the name of a build to a statement on it, with its values."""
Observe = Callable[[str], None]
"""Called with the text of every statement that is executed."""

_log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 3
_FIRST_S: Final = 3.0
_AGAIN_S: Final = 0.1
RETRY_AFTER_S: Final = 1
_LIVE: Final = "SELECT name FROM ingest.builds WHERE state = 'live'"
_BEGIN: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_TOO_MUCH: Final = "54"
"""PostgreSQL's class of errors about what was asked: too deep, too many columns or arguments."""
_PULSE: Final = 0.75
"""Of the time that a connection may take: then a silent server is asked whether it lives."""
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
    pooled: bool = False
    strong_login: Strength = "allowed"

    @property
    def session(self) -> Session:
        """How the database is to treat what is read."""
        return Session(
            statement_timeout_s=self.statement_timeout_s,
            guarded=self.guarded,
            pooled=self.pooled,
            strong_login=self.strong_login,
        )


def ignore(_: str) -> None:
    """Hear of a statement and do nothing."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one statement returned: where the views stand, and its own columns as text."""

    consistency: Consistency
    texts: tuple[bytes | None, ...]


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
            with span("statement"), Cut(self._connection, self._patience_s):
                cursor = await self._connection.execute(sql.text.encode(), sql.values)
                return await cursor.fetchall()
        except psycopg.Error as error:
            raise meaning_of(error) from error


class Reader:
    """The door to the database. `observe` hears the text of every statement that is executed."""

    def __init__(self, options: ReaderOptions, *, observe: Observe = ignore) -> None:
        self._options = options
        self._session = options.session
        self._topics = tuple(options.topics)
        # The server ends a statement itself, unless it does not move any more.
        self._patience_s = options.statement_timeout_s + options.acquire_timeout_s
        self._pulse = Pulse(options.dsn, timeout_s=options.acquire_timeout_s * _PULSE)
        self._observe = observe
        self._build: str | None = None
        self.used = 0
        """How many connections are at work."""
        self._pool = AsyncConnectionPool(
            options.dsn,
            connection_class=DirectConnection,
            open=False,
            min_size=min(2, options.connections),
            max_size=options.connections,
            timeout=options.acquire_timeout_s,
            # Short, so that a caller's own attempt finds the database within seconds of its return.
            reconnect_timeout=options.acquire_timeout_s,
            max_waiting=options.connections * 20,
            configure=self._session.configure,
            kwargs={
                "row_factory": dict_row,
                "connect_timeout": 3,
                # Texts are spliced into answers as they come, and JSON is UTF-8.
                "client_encoding": "UTF8",
                "application_name": "viewkeeper-api",
                **self._session.connecting,
            },
            name="api",
        )

    async def open(self) -> None:
        """Start connecting, without waiting for it: a process starts while its database is away."""
        await self._pool.open()

    @property
    def waited_for(self) -> int:
        """How many operations wait for a connection."""
        waiting: int = self._pool.get_stats()["requests_waiting"]
        return waiting

    async def await_database(self) -> None:
        """Return when it can be read, or after a moment: who comes first shall not wait for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                while not await self._can_read():
                    await asyncio.sleep(_AGAIN_S)

    async def _can_read(self) -> bool:
        try:
            await self.standing()
        except (ApiError, psycopg.Error) as error:
            _log.info("the database cannot be read yet", error=str(error))
            return False
        return True

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
        return await self._tried(lambda connection: self._worked(connection, work, caller))

    async def answer(self, statement: Statement, *, caller: Caller | None) -> Reading:
        """Run one statement, made for the live build; its first columns are `standing_sql`.

        Errors as `read`; and BuildGoneError, TimedOutError as their names say.
        """
        return await self._tried(lambda connection: self._answered(connection, statement, caller))

    async def _tried(self, once: Callable[[DirectConnection], Awaitable[T]]) -> T:
        for _ in range(_ATTEMPTS):
            try:
                return await self._used(once)
            except BuildGoneError as error:
                _log.info("an operation is run again", reason=str(error))
                self._build = None
            except _LostError:
                await self._drop_dead_connections()
            except (PoolTimeout, TooManyRequests) as error:
                raise UnavailableError(_AWAY) from error
            except psycopg.Error as error:
                meaning = meaning_of(error)
                if not isinstance(meaning, BuildGoneError):
                    raise meaning from error
                _log.info("an operation is run again", reason=str(error))
                self._build = None
        raise UnavailableError(_AWAY)

    async def _used(self, once: Callable[[DirectConnection], Awaitable[T]]) -> T:
        # Without the pool's context manager, which would ask every connection to commit.
        connection = await self._pool.getconn()
        self.used += 1
        try:
            return await once(connection)
        except psycopg.Error:
            with suppress(psycopg.Error):
                await connection.rollback()
            raise
        finally:
            self.used -= 1
            await self._pool.putconn(connection)

    async def standing(self) -> Consistency:
        """Where the views stand now. Errors as `answer`."""
        reading = await self.answer(
            lambda build: (f"SELECT {standing_sql(build)}{FROM_LIVE}", ()), caller=None
        )
        return reading.consistency

    @property
    def build(self) -> str | None:
        """The build that the last answer came from; None: there was none yet."""
        return self._build

    async def live_build(self, views: Sequence[str]) -> tuple[str, list[str]]:
        """The live build, and which of these views it does not hold yet."""

        async def work(snapshot: Snapshot) -> tuple[str, list[str]]:
            known = {row["view"] for row in await snapshot.rows(Sql(_VIEWS_KNOWN))}
            return snapshot.build, [view for view in views if view not in known]

        return await self.read(work)

    async def _worked(
        self,
        connection: DirectConnection,
        work: Callable[[Snapshot], Awaitable[T]],
        caller: Caller | None,
    ) -> T:
        async with connection.transaction():
            return await work(await self._snapshot(connection, caller))

    async def _snapshot(self, connection: DirectConnection, caller: Caller | None) -> Snapshot:
        with self._patient(connection):
            if (opening := self._session.opening(caller)) is not None:
                await self._run(connection, *opening)
            build = self._build or await self._live_build(connection)
            reading = await self._read(connection, f"SELECT {standing_sql(build)}{FROM_LIVE}", ())
        return Snapshot(
            connection,
            self._of_live(reading, build).consistency,
            self._observe,
            patience_s=self._patience_s,
        )

    async def _answered(
        self,
        connection: DirectConnection,
        statement: Statement,
        caller: Caller | None,
    ) -> Reading:
        with self._patient(connection):
            build = self._build or await self._live_build(connection)
            text, values = statement(build)
            opening = self._session.opening(caller)
            if opening is None:
                reading = await self._read(connection, text, values)
            else:
                reading = await self._read_after(connection, opening, text, values)
        return self._of_live(reading, build)

    async def _read_after(
        self, connection: Connection, opening: Opening, statement: str, values: Sequence[Any]
    ) -> Reading | None:
        # Settings are a statement of their own: made inside the one that reads, they come too
        # late. The four travel together, and wait for one answer.
        with span("statement"):
            async with connection.pipeline():
                await self._run(connection, _BEGIN)
                await self._run(connection, *opening)
                self._observe(statement)
                cursor = await self._run(connection, statement.encode(), values)
                await self._run(connection, b"COMMIT")
        return self._reading(cursor.pgresult)

    async def _read(
        self, connection: DirectConnection, statement: str, values: Sequence[Any]
    ) -> Reading | None:
        self._observe(statement)
        with span("statement"):
            return self._reading(await connection.run(statement, values))

    async def _run(
        self, connection: Connection, statement: bytes, values: Sequence[Any] = ()
    ) -> psycopg.AsyncRawCursor[TupleRow]:
        cursor = psycopg.AsyncRawCursor(connection, row_factory=tuple_row)
        return await cursor.execute(statement, values)

    def _reading(self, result: PGresult | None) -> Reading | None:
        """The only row as text; None: there is no live build."""
        if result is None or result.ntuples == 0:
            return None
        texts = [result.get_value(0, number) for number in range(result.nfields)]
        consistency = standing_of(texts[:COLUMNS], self._topics)
        return Reading(consistency, tuple(texts[COLUMNS:]))

    def _of_live(self, reading: Reading | None, build: str) -> Reading:
        if reading is None:
            raise UnavailableError(_NOT_SET_UP)
        if reading.consistency.build != build:
            raise BuildGoneError(build)
        self._build = build
        return reading

    async def _live_build(self, connection: Connection) -> str:
        self._observe(_LIVE)
        rows = await (await self._run(connection, _LIVE.encode())).fetchall()
        if not rows:
            raise UnavailableError(_NOT_SET_UP)
        return str(rows[0][0])

    def _patient(self, connection: Connection) -> "_FirstUse":
        return _FirstUse(connection, self._patience_s, self._pulse)

    async def _drop_dead_connections(self) -> None:
        """A restarted server leaves dead connections behind; one of them tells of all."""
        try:
            async with asyncio.timeout(self._options.acquire_timeout_s):
                await self._pool.check()
        except TimeoutError:
            _log.warning("idle connections could not be checked in time")


class _LostError(Exception):
    """The connection was dead before it answered anything. Take another."""


class _FirstUse(Cut):
    """A connection that was dead before it answered anything is no error: take another."""

    __slots__ = ()

    def __exit__(self, *met: object) -> None:
        super().__exit__(*met)
        error = met[1]
        if isinstance(error, psycopg.OperationalError) and not self.made and self.closed:
            raise _LostError from error


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
        case psycopg.OperationalError(sqlstate=str(state)) if state.startswith(_TOO_MUCH):
            return TooComplexError("The database finds the operation too complex. Ask for less.")
        case psycopg.OperationalError() | psycopg.errors.InsufficientPrivilege():
            _log.error("the database cannot be read", error=str(error), sqlstate=error.sqlstate)
            return UnavailableError(_AWAY)
        case _:
            return error
