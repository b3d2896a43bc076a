"""A real PostgreSQL server on loopback, started from the wheel's binaries.

Stands apart because it knows initdb, users and passwords of a server, and nothing of what is in it.
Durability settings stay as PostgreSQL ships them: the worker refuses a server without fsync.
"""

import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, LiteralString
from urllib.parse import quote

import psycopg
from psycopg import sql

from dev.account import public_temp_dir, reachable_binaries, server_account
from dev.ports import LOOPBACK, free_port
from dev.process import OwnedProcess, Program, ServerFailedError

SUPERUSER: Final = "postgres"
READY_TIMEOUT_S: Final = 60.0
INITDB_TIMEOUT_S: Final = 120.0
_CHILDREN_END_S: Final = 15.0
_AGAIN_S: Final = 0.2
_IN_USE: Final = "pre-existing shared memory block"
STOP_SIGNALS: Final[Mapping[str, signal.Signals]] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class Postgres:
    """One server. `start` makes its data folder if there is none; `close` removes it.

    `settings` are lines of postgresql.conf and are read at every start, so a test may change them
    between two starts.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        password: str | None = None,
        name: str = "postgresql",
    ) -> None:
        self.port = free_port(port)
        self.settings = dict(settings or {})
        self.password = password or secrets.token_urlsafe(18)
        self.home = public_temp_dir("viewkeeper-postgres-")
        self.data_dir = self.home / "data"
        self._account = server_account()
        self._bin_dir = reachable_binaries(self._account, self.home / "wheel")
        self._name = name
        self._process = self._own("postgres", self._server_arguments())

    @property
    def process(self) -> OwnedProcess:
        """The postmaster, for faults that go past `stop` and `kill`."""
        return self._process

    def dsn(
        self, dbname: str = "postgres", user: str = SUPERUSER, password: str | None = None
    ) -> str:
        """A connection address; without a user, the superuser's."""
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{quote(user)}:{secret}@{LOOPBACK}:{self.port}/{quote(dbname)}"

    def start(self) -> None:
        """Start, and return when connections are answered."""
        if not self.data_dir.exists():
            self._initdb()
        give_up_at = time.monotonic() + _CHILDREN_END_S
        while True:
            self._process = self._own("postgres", self._server_arguments())
            self._process.start()
            try:
                self._process.wait_ready(self.answers, timeout_s=READY_TIMEOUT_S)
            except ServerFailedError as error:
                # Children outlive a postmaster that was killed for a moment.
                if _IN_USE not in str(error) or time.monotonic() > give_up_at:
                    raise
                time.sleep(_AGAIN_S)
            else:
                return

    def stop(self, mode: str = "fast") -> None:
        """Stop: `smart` waits for clients, `fast` ends them, `immediate` skips the checkpoint."""
        self._process.stop(with_signal=STOP_SIGNALS[mode], timeout_s=30)

    def restart(self, mode: str = "fast") -> None:
        """Stop and start on the same port and data."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL the postmaster; its children notice and end. `start` then recovers from WAL."""
        self._process.kill()

    def close(self) -> None:
        """Stop at once and remove the data."""
        self.stop("immediate")
        shutil.rmtree(self.home, ignore_errors=True)

    def answers(self) -> bool:
        """Whether the server takes connections now."""
        try:
            psycopg.connect(self.dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def create_database(
        self, name: str, *, template: str | None = None, owner: str | None = None
    ) -> str:
        """Create a database, as a copy of `template` if given (fast, by file copy); its address."""
        parts: list[sql.Composable] = [sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))]
        if template is not None:
            # WAL_LOG, the default, writes every page of the template through the log.
            clone: LiteralString = "TEMPLATE {} STRATEGY FILE_COPY"
            parts.append(sql.SQL(clone).format(sql.Identifier(template)))
        if owner is not None:
            parts.append(sql.SQL("OWNER {}").format(sql.Identifier(owner)))
        self.execute(sql.SQL(" ").join(parts))
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and end the sessions in it."""
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self.execute(drop.format(sql.Identifier(name)))

    def create_login(self, name: str, *, password: str, options: LiteralString = "") -> None:
        """Create a role that can log in; `options` as in CREATE ROLE."""
        create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} " + options)
        self.execute(create.format(sql.Identifier(name), sql.Literal(password)))

    def execute(self, statement: sql.SQL | sql.Composed) -> None:
        """Run one statement as the superuser, outside a transaction."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(statement)

    def tool(self, binary: str, *arguments: str, timeout_s: float = 120.0) -> None:
        """Run one of PostgreSQL's programs (pg_basebackup, pg_rewind) as the server's user."""
        process = self._own(binary, list(arguments))
        process.start()
        code = process.wait(timeout_s)
        if code != 0:
            raise RuntimeError(f"{binary} ended with code {code}:\n{process.log_tail()}")

    def standby(self, *, settings: Mapping[str, str] | None = None) -> "Postgres":
        """A streaming standby of this server, copied and started; `promote` makes it a primary."""
        copy = Postgres(
            settings={**self.settings, **(settings or {})},
            password=self.password,
            name=f"{self._name}-standby",
        )
        copy.home_for_server()
        copy.tool(
            "pg_basebackup",
            *("--pgdata", str(copy.data_dir), "--dbname", self.dsn()),
            *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
        )
        copy.start()
        return copy

    def promote(self) -> None:
        """Make a standby a primary and wait until it is."""
        self.execute(sql.SQL("SELECT pg_promote(true, 60)"))

    def home_for_server(self) -> None:
        """Give the folder that will hold the data to the user of the server."""
        if self._account is not None:
            os.chown(self.home, self._account.uid, self._account.gid)

    def _initdb(self) -> None:
        self.home_for_server()
        with self._password_file() as path:
            self.tool(
                "initdb",
                *("--pgdata", str(self.data_dir), "--username", SUPERUSER),
                *("--pwfile", str(path), "--auth=scram-sha-256", "--encoding=UTF8"),
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                "--no-sync",
                timeout_s=INITDB_TIMEOUT_S,
            )

    @contextmanager
    def _password_file(self) -> Iterator[Path]:
        path = self.home / "password"
        path.touch(mode=0o600)
        path.write_text(self.password)
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)
        try:
            yield path
        finally:
            path.unlink()

    def _server_arguments(self) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            **self.settings,
        }
        lines = (f"{name}={value}" for name, value in settings.items())
        options = (part for line in lines for part in ("-c", line))
        return ["-D", str(self.data_dir), *options]

    def _own(self, binary: str, arguments: list[str]) -> OwnedProcess:
        program = Program(
            name=f"{self._name} ({binary})",
            command=[str(self._bin_dir / binary), *arguments],
            cwd=self.home,
            environment={"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"},
            account=self._account,
            # The postmaster must not be shot: on SIGQUIT it takes its children with it.
            death_signal=signal.SIGQUIT,
        )
        return OwnedProcess(program, self.home / f"{binary}.log")
