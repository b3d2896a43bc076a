"""What the tests of this folder share: a hostile log, a database that has read it, workers."""

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from confluent_kafka import KafkaError

from ingest import service
from ingest.settings import IngestSettings
from rebuild.report import Tell
from tests.faults.harness.producers import offer, producer
from tests.faults.oracle.compare import check_invariants, differences, hold
from tests.faults.oracle.fold import expect
from tests.faults.oracle.log import Registry, high_watermarks, read_log
from tests.fixtures.contracts import SchemaIds
from tests.fixtures.databases import Database
from tests.fixtures.traffic import Record as Sent
from tests.fixtures.traffic import Traffic
from tests.fixtures.waiting import eventually
from views import CATALOGUE
from views.positions import Partition, PositionVector

TOPICS = ("orders", "payments")
WAIT_S = 60.0
_LIVE = "SELECT name FROM ingest.builds WHERE state = 'live'"


class Log:
    """A broker with the topics and a registry with the contracts; how to write to it."""

    def __init__(self, bootstrap: str, registry: str, ids: SchemaIds) -> None:
        self.bootstrap = bootstrap
        self.registry = registry
        self.ids = ids
        # One for all: a new one that is idempotent waits half a second for its first answer.
        self._producer = producer(bootstrap)

    def close(self) -> None:
        """Let go of the producer, which tries to reach its broker as long as it exists."""
        del self._producer

    def produce(self, *, seed: int, orders: int, poison: float = 0.02) -> None:
        """Hostile traffic, told under a prefix of its own. Any thread."""
        traffic = Traffic(
            seed=seed, orders=orders, ids=self.ids, poison=poison, prefix=f"order-{seed}"
        )
        self.send(traffic)

    def send(self, records: Iterable[Sent]) -> None:
        """Send records, and return when each is acknowledged. Any thread."""
        sent, outcomes = 0, list[KafkaError | None]()
        for record in records:
            offer(self._producer, record, lambda error, _message: outcomes.append(error))
            sent += 1
        # What another thread flushes it also tells, maybe after this queue is found empty.
        eventually(
            lambda: self._producer.flush(WAIT_S) == 0 and len(outcomes) == sent,
            WAIT_S,
            "each record has its outcome",
        )
        assert outcomes == [None] * sent, "a record was refused"

    def end(self) -> PositionVector:
        """Where the log ends now."""
        return PositionVector(high_watermarks(self.bootstrap, TOPICS))

    def settings(self, database: Database) -> IngestSettings:
        """Settings of a worker, in a group of its own."""
        return IngestSettings.model_validate(
            {
                "database_url": database.dsn,
                "kafka_bootstrap_servers": self.bootstrap,
                "schema_registry_url": self.registry,
                "group_id": f"test-{secrets.token_hex(4)}",
                "ops_port": 0,
            }
        )

    def environment(self, database: Database) -> Mapping[str, str]:
        """The same for programs."""
        return {
            "VIEWKEEPER_DATABASE_URL": database.dsn,
            "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "VIEWKEEPER_SCHEMA_REGISTRY_URL": self.registry,
            "VIEWKEEPER_OPS_PORT": "0",
        }

    def judge(self, database: Database, build: str) -> list[str]:
        """What the oracle holds against a build, judged at the build's own position."""
        held = hold(database.dsn, build)
        records, pinned = read_log(self.bootstrap, TOPICS, until=held.next_offsets)
        expected = expect(
            records, Registry(self.registry), next_offsets=pinned, recorded=held.recorded
        )
        found = [*differences(held, expected), *check_invariants(database.dsn, build)]
        return [str(difference) for difference in found]


@dataclass(slots=True)
class Watcher:
    """Keeps what was said. `on_stage` is called when a stage begins."""

    lines: list[str] = field(default_factory=list)
    told: list[tuple[int, int | None]] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)

    @contextmanager
    def stage(self, title: str) -> Iterator[Tell]:
        """Keep what is told."""
        self.lines.append(title)
        yield lambda done, total: self.told.append((done, total))


@dataclass(slots=True)
class Interrupting(Watcher):
    """Calls somebody once: when a line that begins so is said, or a stage so named begins."""

    at: str = ""
    call: Callable[[], None] = lambda: None
    called: int = 0

    def say(self, line: str) -> None:
        """Keep a line."""
        Watcher.say(self, line)
        self._meet(line)

    @contextmanager
    def stage(self, title: str) -> Iterator[Tell]:
        """Keep what is told."""
        with Watcher.stage(self, title) as tell:
            self._meet(title)
            yield tell

    def _meet(self, line: str) -> None:
        if line.startswith(self.at) and not self.called:
            self.called += 1
            self.call()


@contextmanager
def worker(settings: IngestSettings) -> Iterator[None]:
    """A live worker, in a thread."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            service.run(settings, stop=stop)
        except BaseException as error:  # noqa: BLE001 - raised below, where the test sees it
            errors.append(error)

    thread = threading.Thread(target=run, name="worker")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


def value(database: Database, query: str, *parameters: object) -> Any:
    """The one value that a query answers."""
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute(query.encode(), parameters or None).fetchone()
    return None if row is None else row[0]


def execute(database: Database, *statements: str) -> None:
    """Statements of somebody who tampers with rows."""
    with psycopg.connect(database.dsn) as connection:
        for statement in statements:
            assert connection.execute(statement.encode()).rowcount != 0, statement


def live(database: Database) -> str:
    """The schema of the live build."""
    return str(value(database, _LIVE))


def builds(database: Database) -> dict[str, str]:
    """Every build and its state."""
    with psycopg.connect(database.dsn) as connection:
        rows = connection.execute("SELECT name, state FROM ingest.builds ORDER BY number")
        return {str(name): str(state) for name, state in rows}


def schemas(database: Database) -> set[str]:
    """The schemas of builds that exist, whatever `ingest.builds` says."""
    with psycopg.connect(database.dsn) as connection:
        rows = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(build_|repair)'"
        )
        return {str(row[0]) for row in rows}


def offsets(database: Database, build: str) -> Mapping[Partition, int]:
    """The position of a build."""
    with psycopg.connect(database.dsn) as connection:
        return _offsets(connection, build)


def _offsets(connection: psycopg.Connection[Any], build: str) -> dict[Partition, int]:
    rows = connection.execute(
        f"SELECT topic, partition, next_offset FROM {build}.positions".encode()
    )
    return {(topic, partition): offset for topic, partition, offset in rows}


def content(database: Database, build: str) -> dict[str, list[str]]:
    """Every row of every view of a build, as text."""
    with psycopg.connect(database.dsn) as connection:
        return {
            view.name: [
                str(row[0])
                for row in connection.execute(
                    f"SELECT t::text FROM {build}.{view.name} t ORDER BY 1".encode()
                )
            ]
            for view in CATALOGUE.views
        }


def wait_until_live_includes(database: Database, position: PositionVector) -> None:
    """Wait until the live build holds every event below a position."""
    # One session for all the looks: to connect costs both sides more than the question.
    with psycopg.connect(database.dsn, autocommit=True) as connection:

        def reached() -> bool:
            row = connection.execute(_LIVE).fetchone()
            assert row is not None
            return PositionVector(_offsets(connection, row[0])).includes(position)

        eventually(reached, WAIT_S, f"the live build reaches {position}")
