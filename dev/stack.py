"""PostgreSQL, Kafka and the registry together, started side by side.

Stands apart because it is what `demo`, `dev up` and the test fixtures share: one object with the
addresses of everything, and the VIEWKEEPER_* settings that point the product at it.
"""

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import psycopg
from psycopg import sql

from dev.cache import Say, say_nothing
from dev.kafka import KafkaCluster, kafka_program
from dev.postgres import Postgres
from dev.registry import Registry, registry_program
from dev.training import Training

DATABASE: Final = "viewkeeper"
OWNER: Final = "viewkeeper"
READER_ROLE: Final = "viewkeeper_reader"
API_LOGIN: Final = "viewkeeper_api"


@dataclass(frozen=True, slots=True)
class WantedPorts:
    """Ports to use where they are free; None takes any."""

    postgres: int | None = None
    kafka: int | None = None
    registry: int | None = None


def nothing_more() -> None:
    """For a server after which nothing is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """What to do as soon as a server answers: migrate, create topics, register contracts."""

    postgres: Callable[[], None] = nothing_more
    kafka: Callable[[], None] = nothing_more
    registry: Callable[[], None] = nothing_more


class Stack:
    """All three servers, empty, with the database `viewkeeper` and its two logins.

    Used as a context manager, or by `start` and `close`. With `train`, the first start on a machine
    prepares quicker ones in idle time (`dev/training.py`): leave it off while measuring.
    """

    def __init__(
        self,
        *,
        brokers: int = 1,
        ports: WantedPorts | None = None,
        postgres_settings: Mapping[str, str] | None = None,
        kafka_settings: Mapping[str, str] | None = None,
        say: Say = say_nothing,
        train: bool = True,
    ) -> None:
        ports = ports or WantedPorts()
        self.postgres = Postgres(port=ports.postgres, settings=postgres_settings)
        self.kafka = KafkaCluster(
            brokers=brokers, port=ports.kafka, settings=kafka_settings, say=say
        )
        self.registry = Registry(port=ports.registry, say=say)
        self._owner_password = secrets.token_urlsafe(18)
        self._api_password = secrets.token_urlsafe(18)
        self._say = say
        self._train = train
        self._training: Training | None = None
        self._tell_moved_ports(ports)

    def start(self, *, after: After | None = None) -> None:
        """Start all three side by side; if one fails, the others are stopped again.

        What `after` names runs as soon as its server answers, beside those that still start.
        """
        after = after or After()
        try:
            in_parallel(
                [
                    lambda: self._timed("PostgreSQL", self._start_postgres, after.postgres),
                    lambda: self._timed("Kafka", self.kafka.start, after.kafka),
                    lambda: self._timed("schema registry", self.registry.start, after.registry),
                ]
            )
        except BaseException:
            self.close()
            raise
        if self._train:
            self._training = Training(
                kafka=kafka_program(self._say),
                registry=registry_program(self._say),
                say=self._say,
            )
            self._training.start()

    def close(self) -> None:
        """Stop everything, in reverse order, and remove the data."""
        if self._training is not None:
            self._training.stop()
        self.registry.close()
        self.kafka.close()
        self.postgres.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def database_url(self) -> str:
        """The product's database, as its owner (who is no superuser)."""
        return self.postgres.dsn(DATABASE, OWNER, self._owner_password)

    @property
    def api_database_url(self) -> str:
        """The same as a login that can only read."""
        return self.postgres.dsn(DATABASE, API_LOGIN, self._api_password)

    def environment(self) -> dict[str, str]:
        """The settings that point every `viewkeeper` command at this stack."""
        return {
            "VIEWKEEPER_DATABASE_URL": self.database_url,
            "VIEWKEEPER_API_DATABASE_URL": self.api_database_url,
            "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "VIEWKEEPER_SCHEMA_REGISTRY_URL": self.registry.url,
        }

    def _start_postgres(self) -> None:
        self.postgres.start()
        self.postgres.create_login(OWNER, password=self._owner_password, options="CREATEROLE")
        self.postgres.create_database(DATABASE, owner=OWNER)
        create_api_login(self.database_url, password=self._api_password)

    def _timed(self, name: str, start: Callable[[], None], after: Callable[[], None]) -> None:
        began_at = time.monotonic()
        start()
        self._say(f"{name} is ready ({time.monotonic() - began_at:.1f} s)")
        after()

    def _tell_moved_ports(self, wanted: WantedPorts) -> None:
        got = (
            ("PostgreSQL", wanted.postgres, self.postgres.port),
            ("Kafka", wanted.kafka, self.kafka.port),
            ("schema registry", wanted.registry, self.registry.port),
        )
        for name, asked, port in got:
            if asked not in (None, port):
                self._say(f"port {asked} is taken: {name} uses {port}")


def create_api_login(owner_dsn: str, *, password: str, login: str = API_LOGIN) -> None:
    """Make (or give a new password to) the login of the API, a member of `viewkeeper_reader`.

    That role is made here if no migration has made it yet: roles belong to the whole server, so
    a migration has to live with finding it. Run as a login that may create roles.
    """
    names = {"login": sql.Identifier(login), "reader": sql.Identifier(READER_ROLE)}
    with psycopg.connect(owner_dsn) as connection:
        for role, kind in ((READER_ROLE, "NOLOGIN"), (login, "LOGIN")):
            found = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
            if found.fetchone() is None:
                create = sql.SQL("CREATE ROLE {} " + kind)
                connection.execute(create.format(sql.Identifier(role)))
        change = sql.SQL("ALTER ROLE {} PASSWORD {}")
        connection.execute(change.format(names["login"], sql.Literal(password)))
        connection.execute(sql.SQL("GRANT {reader} TO {login}").format(**names))


def in_parallel(jobs: Sequence[Callable[[], None]]) -> None:
    """Run every job in a thread of its own; raise the first error when all have ended.

    Daemon threads: after Ctrl-C the program ends without waiting for a download.
    """
    errors: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
