"""The worker's connection to PostgreSQL: how it is opened, what is asked of the server, and what
each of its errors means.

A connection that met an error it can't explain is thrown away: after a broken COMMIT nothing may be
concluded from it, and the position rows say what happened.
"""

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from psycopg import Connection, errors

from ingest.errors import BatchRefusedError, FencedError, RefusedError, TransientError
from ingest.form import EventForm
from ingest.statements import Statements, statements
from views.model import Catalogue

APPLICATION = "viewkeeper ingest"
"""How the server knows our backends: only these are ever terminated by a taker-over."""
UNSAFE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""Settings under which a commit that was acknowledged can be lost."""

_SESSION = """
SELECT set_config('statement_timeout', '60s', false),
       set_config('lock_timeout', '15s', false),
       set_config('idle_in_transaction_session_timeout', '30s', false),
       set_config('timezone', 'UTC', false),
       set_config('jit', 'off', false),
       set_config('work_mem', '64MB', false)
"""

_ROOM_ROWS = 5_000
"""Rows whose room is left taken in temporary tables: pages to read for every batch, against new
entries in the catalogue each time."""

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A build that is not served while it is written: one that a rebuild fills or brings forward.

    Its commits tell nobody and need not wait for the disk: rows and positions go together, and
    what makes it live waits for everything before it. `keeps_dead`: whether dead letters that
    nobody has recorded yet are kept.
    """

    build: str
    keeps_dead: bool


class Session:
    """One connection, the live build as it was when it opened, and the SQL for that build.

    With a target it is that build instead, live or not, whole or not.
    """

    def __init__(
        self,
        dsn: str,
        *,
        catalogue: Catalogue,
        forms: Mapping[str, EventForm],
        allow_unsafe: bool = False,
        target: Target | None = None,
    ) -> None:
        self.dsn = dsn
        self.target = target
        self.log = structlog.get_logger(__name__)
        self._catalogue = catalogue
        self._forms = forms
        self._allow_unsafe = allow_unsafe
        self._connection: Connection[Row] | None = None
        self._statements: Statements | None = None
        self._staged = 0
        self.owner = f"{socket.gethostname()}/{os.getpid()}"

    @property
    def build(self) -> str:
        """The schema of the build that this session writes to."""
        return self.statements.build

    @property
    def statements(self) -> Statements:
        """The SQL of a batch in that build."""
        assert self._statements is not None, "the session is not open"
        return self._statements

    def emptied(self, rows: int) -> str:
        """The SQL that empties the temporary tables before so many rows are staged.

        To delete what the batch before left is quick and leaves its room taken; to truncate frees
        it, and takes as long as to write a small batch. So room for some thousand rows is left.
        """
        if self._staged > _ROOM_ROWS:
            self._staged = rows
            return self.statements.truncate
        self._staged += rows
        return self.statements.delete

    @property
    def is_open(self) -> bool:
        """Whether there is a connection; it may be broken all the same."""
        return self._connection is not None

    @contextmanager
    def transaction(self) -> Iterator[Connection[Row]]:
        """One transaction, opening the session first where it has to be; see `translated`.

        A fenced or refused batch is rolled back and the session goes on; after anything else it is
        thrown away.
        """
        with translated():
            connection = self._open()
            try:
                yield connection
                connection.commit()
            except (FencedError, psycopg.DataError, psycopg.IntegrityError):
                self._roll_back(connection)
                raise
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the connection, if there is one. The server rolls back what is open."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._statements = None
        self._staged = 0

    def open(self) -> None:
        """Connect and look at the database now. Errors: see `translated`; RefusedError."""
        with translated():
            self._open()

    def _roll_back(self, connection: Connection[Row]) -> None:
        """Roll back; where that does not work, the connection is of no more use."""
        self._staged = _ROOM_ROWS + 1  # what was emptied may be full again
        try:
            connection.rollback()
        except psycopg.Error:
            self.close()

    def _open(self) -> Connection[Row]:
        if self._connection is None:
            connection = connect(self.dsn, f"{APPLICATION} {self.owner}")
            try:
                connection.execute(_SESSION)
                if not self._allow_unsafe:
                    refuse_unsafe(connection)
                build = self._find_build(connection)
                self._statements = statements(build, self._catalogue, self._forms)
                run_all(connection, self._statements.temporary)
                connection.commit()
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _find_build(self, connection: Connection[Row]) -> str:
        if self.target is not None:
            connection.execute("SET synchronous_commit = off")
            return self.target.build
        build = live_build(connection)
        refuse_incomplete(connection, build, self._catalogue)
        return build


def connect(dsn: str, application: str) -> Connection[Row]:
    """A connection that notices a dead server within half a minute."""
    return psycopg.connect(
        dsn,
        application_name=application,
        connect_timeout=5,
        keepalives=1,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
    )


def run_all(connection: Connection[Row], statements: Iterable[str]) -> None:
    """Execute statements that hold no parameters."""
    for statement in statements:
        connection.execute(statement)


@contextmanager
def translated() -> Iterator[None]:
    """Give the database's errors their kind. The kind decides the worker's move."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise _refused_login(error) from error
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise BatchRefusedError(_words(error)) from error
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn) as error:
        raise TransientError(
            f"the database lacks a table or column: {_words(error)}. Run `alembic upgrade head`;"
            " the worker goes on by itself."
        ) from error
    except (psycopg.OperationalError, psycopg.InternalError, psycopg.InterfaceError) as error:
        if _REFUSED_LOGIN in str(error):
            raise _refused_login(error) from error
        raise TransientError(f"database: {_words(error)}") from error


_REFUSED_LOGIN = "password authentication failed"
"""What the server says; its SQLSTATE (28P01) gets lost where no connection comes about. A server
that says it in another language is waited for, with its words on `/readyz`."""


def _refused_login(error: psycopg.Error) -> RefusedError:
    return RefusedError(
        f"the database refuses this login: {_words(error)}. Use the owner's login in"
        " VIEWKEEPER_DATABASE_URL."
    )


def _words(error: psycopg.Error) -> str:
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    text = error.diag.message_primary or str(error).strip().replace("\n", " ")
    return f"{text}{state}"


def refuse_unsafe(connection: Connection[Row]) -> None:
    """RefusedError where the server can lose a commit that it acknowledged."""
    found = [
        name
        for name, bad in UNSAFE.items()
        if connection.execute("SELECT current_setting(%s)", (name,)).fetchone() == (bad,)
    ]
    if found:
        raise RefusedError(
            f"the database runs with {' and '.join(f'{name}=off' for name in found)}: a crash can"
            " lose commits that were acknowledged, and views and positions with them. Switch"
            f" {'it' if len(found) == 1 else 'them'} on, or set"
            " VIEWKEEPER_ALLOW_UNSAFE_DATABASE=true where losing data is acceptable."
        )


def live_build(connection: Connection[Row]) -> str:
    """The schema of the build that is live. RefusedError: the database was never migrated."""
    try:
        row = connection.execute("SELECT name FROM ingest.builds WHERE state = 'live'").fetchone()
    except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
        raise RefusedError(
            "the database has no viewkeeper schema: run `alembic upgrade head` first"
        ) from error
    if row is None:
        raise RefusedError(
            "no build is live in ingest.builds: a rebuild was not finished, or its row was changed"
            ' by hand; see docs/operating.md, "Builds"'
        )
    return str(row[0])


def refuse_incomplete(connection: Connection[Row], build: str, catalogue: Catalogue) -> None:
    """RefusedError where the live build does not hold every view of this code's catalogue."""
    known = {
        row[0]
        for row in connection.execute(
            "SELECT v.view FROM ingest.build_views v JOIN ingest.builds b USING (number)"
            " WHERE b.name = %s",
            (build,),
        )
    }
    missing = [view.name for view in catalogue.views if view.name not in known]
    if missing:
        raise RefusedError(
            f"build {build} does not hold {', '.join(missing)} yet: run `alembic upgrade head`,"
            " and where it says so `viewkeeper rebuild`"
        )
