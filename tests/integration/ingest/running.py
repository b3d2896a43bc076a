"""A worker at work, in a thread of the test or as a process of its own, and what it left behind."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psycopg
from confluent_kafka import Producer

from dev.ports import free_port
from ingest import service
from ingest.settings import IngestSettings
from tests.faults.oracle import Registry, check_invariants, expect, read_log
from tests.faults.oracle.compare import differences, hold
from tests.fixtures.traffic import Record, produce
from tests.fixtures.waiting import eventually
from views import CATALOGUE
from views.positions import Partition, PositionVector

WAIT_S = 60.0
BUILD = "build_1"
_ROOT = Path(__file__).parents[3]


class Worker:
    """`ingest.service.run` in a thread. Stopped and waited for at the end of the `with`."""

    def __init__(self, settings: IngestSettings, *, until: PositionVector | None = None) -> None:
        self.settings = settings
        self.error: BaseException | None = None
        self._until = until
        self.stop_event = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker under test", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            service.run(self.settings, until=self._until, stop=self.stop_event)
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            self.error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def wait(self) -> None:
        """Until it ends by itself. What it raised is raised here."""
        self._thread.join(WAIT_S)
        assert not self.running, "the worker did not end"
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self.stop_event.set()
        self.wait()

    def ready(self) -> dict[str, Any]:
        """What `/readyz` says."""
        return readiness(self.settings.ops_port)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_event.set()
        self._thread.join(WAIT_S)
        if kind is None:
            assert not self.running, "the worker did not end"
            if self.error is not None:
                raise self.error


class Process:
    """`viewkeeper ingest` as its users run it, for what only a process can suffer."""

    def __init__(
        self, settings: IngestSettings, *arguments: str, log: Path, **environment: str
    ) -> None:
        self.log = log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "ingest", *arguments],
                env=_environment(settings) | environment,
                cwd=_ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def terminate(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _environment(settings: IngestSettings) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith("VIEWKEEPER_")}
    return kept | {
        "VIEWKEEPER_DATABASE_URL": settings.database_url.get_secret_value(),
        "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "VIEWKEEPER_SCHEMA_REGISTRY_URL": settings.schema_registry_url,
        "VIEWKEEPER_GROUP_ID": settings.group_id,
        "VIEWKEEPER_OPS_PORT": str(settings.ops_port),
        "VIEWKEEPER_BATCH_ROWS": str(settings.batch_rows),
        "VIEWKEEPER_KAFKA_SESSION_TIMEOUT_MS": settings.kafka_options["session.timeout.ms"],
        "VIEWKEEPER_KAFKA_HEARTBEAT_INTERVAL_MS": settings.kafka_options["heartbeat.interval.ms"],
    }


def settings_of(
    *, dsn: str, bootstrap: str, registry: str, group: str = "viewkeeper", **more: Any
) -> IngestSettings:
    """Settings with a free ops port and a short session, so that takeovers are quick."""
    return IngestSettings.model_validate(
        {
            "database_url": dsn,
            "kafka_bootstrap_servers": bootstrap,
            "schema_registry_url": registry,
            "group_id": group,
            "ops_port": free_port(),
            "kafka_options": {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"},
        }
        | more
    )


def readiness(port: int) -> dict[str, Any]:
    """The body of `/readyz`; empty while nobody answers."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return {}
    body: dict[str, Any] = answer.json()
    assert (answer.status_code == 200) is body["ready"]
    return body


def positions(dsn: str) -> dict[Partition, int]:
    """The next offset of each partition in the live build."""
    rows = query(dsn, f"SELECT topic, partition, next_offset FROM {BUILD}.positions")
    return {(topic, partition): offset for topic, partition, offset in rows}


def query(dsn: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """The rows of a statement in a transaction of its own; none for one that answers none."""
    with psycopg.connect(dsn) as connection:
        cursor = connection.execute(sql.encode(), values)
        if cursor.description:
            return cursor.fetchall()
        # Its rows would look like none.
        assert not str(cursor.statusmessage).startswith("SELECT"), f"no column: {sql}"
        return []


def ends_of(landed: Iterable[tuple[str, int, int]]) -> dict[Partition, int]:
    """The position behind the last of these records, per partition."""
    ends: dict[Partition, int] = {}
    for topic, partition, offset in landed:
        ends[topic, partition] = max(ends.get((topic, partition), 0), offset + 1)
    return ends


def reach(dsn: str, ends: Mapping[Partition, int], *, timeout_s: float = WAIT_S) -> None:
    """Wait until the views contain everything below these positions."""

    def reached() -> bool:
        at = positions(dsn)
        return all(at.get(partition, 0) >= end for partition, end in ends.items())

    eventually(reached, timeout_s, f"the views reach {dict(ends)}")


def tell(bootstrap: str, records: Iterable[Record]) -> dict[Partition, int]:
    """Produce records; the positions behind them."""
    return ends_of(produce(bootstrap, records))


def differences_to_log(dsn: str, *, bootstrap: str, registry: str) -> list[str]:
    """What the oracle finds wrong with the live build where it stands. Empty: nothing."""
    held = hold(dsn, BUILD)
    records, pinned = read_log(bootstrap, CATALOGUE.topics, until=held.next_offsets)
    expected = expect(records, Registry(registry), next_offsets=pinned, recorded=held.recorded)
    found = [*differences(held, expected), *check_invariants(dsn, BUILD)]
    return [str(difference) for difference in found]


_COUNTED = "topic, partition, next_offset, applied, superseded, duplicates, tombstones, dead"
_DEAD = (
    'topic, partition, "offset", key, value, headers, recorded_at, schema_id, reason, detail,'
    " attempts, state"
)


def dump(dsn: str) -> dict[str, list[str]]:
    """Every row of every view, the positions with their counters, and the dead letters, as text."""
    tables = {view.name: f"SELECT * FROM {BUILD}.{view.name}" for view in CATALOGUE.views}
    tables |= {
        "positions": f"SELECT {_COUNTED} FROM {BUILD}.positions",
        "tombstones": f"SELECT * FROM {BUILD}.tombstones",
        "dead_letters": f"SELECT {_DEAD} FROM ingest.dead_letters",
    }
    return {
        name: sorted(row for (row,) in query(dsn, f"SELECT r::text FROM ({select}) r"))
        for name, select in tables.items()
    }


def transactional(bootstrap: str, name: str) -> Producer:
    """A producer with an open transaction's worth of waiting: short."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": name,
            "log_level": 0,
            "transaction.timeout.ms": 30_000,
        }
    )
    producer.init_transactions(WAIT_S)
    return producer
