"""A primary and its standby: two real PostgreSQL servers with physical replication in between.

Stands apart because a fail-over needs servers that nobody else uses: the primary dies for good.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final, Self

import psycopg
from psycopg import sql

from dev.ports import LOOPBACK
from dev.postgres import Postgres
from tests.fixtures.databases import Database, DatabaseServer
from tests.fixtures.waiting import PATIENCE_S, eventually

_SETTINGS: Final = {"max_connections": "60"}
_S: Final = PATIENCE_S


class Pair:
    """A migrated database on a primary, and a standby that follows it."""

    def __init__(self) -> None:
        self.primary = Postgres(settings=_SETTINGS)
        self._at_end = ExitStack()
        self._standby: Postgres | None = None
        self._database: Database | None = None

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self.primary.close)
            self.primary.start()
            databases = DatabaseServer(self.primary)
            self._database = databases.create(template=databases.template.name)
            self._standby = self.primary.standby()
            undo.callback(self._standby.close)
            self._at_end = undo.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._at_end.close()

    @property
    def standby(self) -> Postgres:
        """The server that follows; a primary after `promote`."""
        assert self._standby is not None, "the pair was not entered"
        return self._standby

    @property
    def dsn(self) -> str:
        """The owner's address: both servers, whichever of them can be written."""
        return self._both(self._own.dsn, "read-write")

    @property
    def api_dsn(self) -> str:
        """The reader's address: both servers, whichever of them is the primary."""
        return self._both(self._own.api_dsn, "primary")

    @property
    def _own(self) -> Database:
        assert self._database is not None, "the pair was not entered"
        return self._database

    def _both(self, dsn: str, attributes: str) -> str:
        one, other = (f"{LOOPBACK}:{server.port}/" for server in (self.primary, self.standby))
        return f"{dsn.replace(one, f'{one[:-1]},{other}')}?target_session_attrs={attributes}"

    # Replication.

    def wait_for_each_other(self, level: str) -> None:
        """Synchronous from now on: no commit is acknowledged before the standby has it."""
        for name, value in (("synchronous_commit", level), ("synchronous_standby_names", "*")):
            self._set(self.primary, name, value)
        eventually(
            lambda: (
                self._ask(self.primary, "SELECT sync_state FROM pg_stat_replication") == [("sync",)]
            ),
            _S,
            "the primary waits for the standby",
        )

    def part(self) -> None:
        """The standby receives nothing more, and applies what it has."""
        self._set(self.standby, "primary_conninfo", "")
        eventually(
            lambda: not self._ask(self.standby, "SELECT 1 FROM pg_stat_wal_receiver"),
            _S,
            "the standby receives nothing",
        )
        self.replayed()

    def replayed(self) -> None:
        """Return when the standby has applied everything that it received."""
        eventually(
            lambda: (
                self._ask(
                    self.standby, "SELECT pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()"
                )
                == [(True,)]
            ),
            _S,
            "the standby has applied what it has",
        )

    def positions(self, server: Postgres) -> dict[tuple[str, int], int]:
        """The next offset of each partition, as this server has it."""
        rows = self._ask(server, "SELECT topic, partition, next_offset FROM build_1.positions")
        return {(topic, partition): offset for topic, partition, offset in rows}

    def _set(self, server: Postgres, name: str, value: str) -> None:
        change = sql.SQL("ALTER SYSTEM SET {} = {}")
        server.execute(change.format(sql.Identifier(name), sql.Literal(value)))
        server.execute(sql.SQL("SELECT pg_reload_conf()"))

    def _ask(self, server: Postgres, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(server.dsn(self._own.name), autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()
