"""What a benchmark runs on: one PostgreSQL, one broker, one registry, and a fresh database per run.

Stands apart so that every contestant meets the same servers, started by the same code as the demo
and the tests.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from confluent_kafka import Consumer
from psycopg import sql

from bench.child import Child, cpu_s
from bench.eventlog import TOPICS, contract
from dev.stack import OWNER, Stack

CHECKOUT: Final = Path(__file__).parents[1]
MIGRATION_TIMEOUT_S: Final = 120.0
JOIN_TIMEOUT_S: Final = 30.0
# Durable as shipped. Commit times are kept because the end of a run is read from them, and there
# is room for a whole run between two checkpoints, so that none lands on one contestant alone.
POSTGRES_SETTINGS: Final[Mapping[str, str]] = {
    "track_commit_timestamp": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "60min",
}


@dataclass(frozen=True, slots=True)
class Database:
    """A fresh database: its owner's address, and that of a login that may only read the views."""

    name: str
    dsn: str
    reader_dsn: str


class Stage:
    """The running servers. As a context manager it starts them, and ends and removes them."""

    def __init__(self, *, partitions: int) -> None:
        self.partitions = partitions
        self.servers = Stack(postgres_settings=POSTGRES_SETTINGS, train=False)
        self.postgres, self.kafka = self.servers.postgres, self.servers.kafka
        self.registry = self.servers.registry
        self.logs = Path(tempfile.mkdtemp(prefix="viewkeeper-bench-"))
        self.schema_ids: dict[str, int] = {}
        self._made = 0
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.logs, ignore_errors=True)
            stack.enter_context(self.servers)
            for topic in TOPICS:
                self.kafka.create_topic(
                    topic, partitions=self.partitions, config={"retention.ms": "-1"}
                )
                self.schema_ids[topic] = self._register(topic)
            self._join_once()
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._exit.close()

    def fresh_database(self, purpose: str) -> Database:
        """An empty database, after a checkpoint, so that nobody writes back another's pages."""
        self._made += 1
        name = f"bench_{self._made}_{purpose}"
        self.postgres.create_database(name, owner=OWNER)
        self.postgres.execute(sql.SQL("CHECKPOINT"))
        return Database(
            name,
            dsn=_in_database(self.servers.database_url, name),
            reader_dsn=_in_database(self.servers.api_database_url, name),
        )

    def drop(self, database: Database) -> None:
        """Remove a database that is not needed any more."""
        self.postgres.drop_database(database.name)

    def migrate(self, database: Database) -> None:
        """Bring a database to the newest version of the views."""
        command = [str(script("alembic")), "-c", str(CHECKOUT / "alembic.ini"), "upgrade", "head"]
        with self.child(
            "migrate", command, environment={"VIEWKEEPER_DATABASE_URL": database.dsn}
        ) as child:
            child.result(MIGRATION_TIMEOUT_S)

    def child(
        self, name: str, command: list[str], *, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a program that knows these servers, without the settings of our environment."""
        dropped = ("VIEWKEEPER_", "PYTHON")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        return Child(
            name,
            command,
            environment={
                **inherited,
                "PYTHONPATH": str(CHECKOUT),
                "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
                "VIEWKEEPER_SCHEMA_REGISTRY_URL": self.registry.url,
                **(environment or {}),
            },
            log_path=self.logs / f"{name.replace(' ', '-')}.log",
        )

    def database_cpu_s(self) -> float:
        """CPU seconds that the database server's ended backends and postmaster took so far."""
        return cpu_s(self.postgres.process.pid, children=True)

    def _join_once(self) -> None:
        """Have the broker make its group coordinator before somebody is timed."""
        assigned = threading.Event()
        consumer = Consumer(
            {"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": "warm-up"}
        )
        consumer.subscribe(list(TOPICS), on_assign=lambda *_: assigned.set())
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        while not assigned.is_set() and time.monotonic() < deadline:
            consumer.poll(0.5)
        consumer.close()

    def _register(self, topic: str) -> int:
        request = urllib.request.Request(
            f"{self.registry.url}/subjects/{topic}-value/versions",
            data=json.dumps({"schema": json.dumps(contract(topic))}).encode(),
            headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(json.load(response)["id"])


def _in_database(dsn: str, name: str) -> str:
    return urlsplit(dsn)._replace(path=f"/{name}").geturl()


def script(name: str) -> Path:
    """A console script of the environment that runs us."""
    return Path(sys.executable).with_name(name)
