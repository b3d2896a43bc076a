"""One log with one partition per topic, a worker on it, and the command line beside it."""

import json
import os
import random
import secrets
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cli.main import app
from ingest.settings import IngestSettings
from schemas.contracts import load
from schemas.registry import Registry
from tests.fixtures.content import Writer, header, order_content, payment_content
from tests.fixtures.contracts import SchemaIds
from tests.fixtures.traffic import START_MS, Record
from tests.integration.ingest.running import (
    BUILD,
    Worker,
    differences_to_log,
    query,
    reach,
    settings_of,
    tell,
)
from views.positions import Partition

_ROOT = Path(__file__).parents[3]


@dataclass(slots=True)
class Scene:
    """What a test of dead letters works with."""

    dsn: str
    bootstrap: str
    registry: str
    ids: SchemaIds
    workers: list[Worker] = field(default_factory=list)
    told: int = 0
    _write: Writer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._write = Writer(self.ids)

    # The log.

    def good(self, count: int, *, prefix: str = "good", topic: str = "orders") -> list[Record]:
        """Orders that nobody can object to, or a payment of each."""
        return [self._event(f"{prefix}-{n}", topic) for n in range(count)]

    def bad(self, count: int, *, prefix: str = "bad") -> list[Record]:
        """Orders whose first byte is wrong."""
        return [
            self._record(f"{prefix}-{n}", b"\x07" + self._event(f"{prefix}-{n}", "orders").value)
            for n in range(count)
        ]

    def of_schema(self, schema_id: int, count: int, *, prefix: str, **changes: Any) -> list[Record]:
        """Good orders that say that they were written with another schema."""
        events = [self._event(f"{prefix}-{n}", "orders", **changes) for n in range(count)]
        return [
            self._record(f"{prefix}-{n}", _relabelled(e, schema_id)) for n, e in enumerate(events)
        ]

    def order(self, order_id: str, **changes: Any) -> Record:
        """One order event."""
        event: Record = self._event(order_id, "orders", **changes)
        return event

    def _event(self, order_id: str, topic: str, **changes: Any) -> Any:
        rng = random.Random(order_id)
        order = order_content(rng, order_id, customers=5)
        content = order if topic == "orders" else payment_content(rng, order, 0)
        return self._record(order_id, self._write(topic, content | changes), topic)

    def _record(self, order_id: str, value: bytes, topic: str = "orders") -> Record:
        self.told += 1
        return Record(topic, order_id.encode(), value, START_MS + self.told, "event")

    def tell(self, *records: Iterable[Record]) -> dict[Partition, int]:
        """Produce them; the positions behind them."""
        return tell(self.bootstrap, [record for part in records for record in part])

    # The worker and the database.

    def settings(self, **more: Any) -> IngestSettings:
        """Settings of a worker of this scene."""
        return settings_of(dsn=self.dsn, bootstrap=self.bootstrap, registry=self.registry, **more)

    def worker(self, **more: Any) -> Worker:
        """Start a worker; stopped with the scene."""
        worker = Worker(self.settings(**more)).start()
        self.workers.append(worker)
        return worker

    def reach(self, ends: dict[Partition, int]) -> None:
        """Wait until the views contain everything below."""
        reach(self.dsn, ends)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of one statement."""
        return query(self.dsn, sql, *values)

    def dead(self, state: str = "open") -> list[tuple[str, int, str]]:
        """(topic, offset, reason) of the dead letters in a state."""
        return [
            (topic, offset, reason)
            for topic, offset, reason in self.query(
                'SELECT topic, "offset", reason FROM ingest.dead_letters WHERE state = %s'
                ' ORDER BY topic, "offset"',
                state,
            )
        ]

    def differences(self) -> list[str]:
        """What the oracle finds wrong."""
        return differences_to_log(self.dsn, bootstrap=self.bootstrap, registry=self.registry)

    def orders(self, prefix: str) -> int:
        """How many visible orders have this prefix."""
        return int(
            self.query(
                f"SELECT count(*) FROM {BUILD}.orders WHERE visible AND starts_with(order_id, %s)",
                prefix,
            )[0][0]
        )

    # The command line.

    def environment(self) -> dict[str, str]:
        """What the commands read."""
        return {
            "VIEWKEEPER_DATABASE_URL": self.dsn,
            "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "VIEWKEEPER_SCHEMA_REGISTRY_URL": self.registry,
        }

    def run(
        self, *arguments: str, code: int = 0, environment: Mapping[str, str] | None = None
    ) -> str:
        """`viewkeeper ...` in this process; its output."""
        given = self.environment() | dict(environment or {})
        result = CliRunner().invoke(app, list(arguments), env=given)
        assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
        return result.stdout

    def run_json(self, *arguments: str, code: int = 0) -> Any:
        """The same with `--json`, read."""
        printed = self.run(*arguments, "--json", code=code)
        # The log of a worker in this process goes the same way, a line at a time.
        return json.loads(printed[printed.index("{\n") :])

    def process(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """`viewkeeper ...` as a process of its own, to be killed."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith("VIEWKEEPER_")}
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments],
            env=kept | self.environment(),
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


def _relabelled(event: Record, schema_id: int) -> bytes:
    assert event.value is not None
    return header(schema_id) + event.value[5:]


class LateSchema:
    """A schema that the registry will know only after `register`, and whose id is known before.

    It adds a field that takes no bytes, so bodies of the contract's own schema fit it.
    """

    def __init__(self, registry: str, name: str) -> None:
        self._registry = registry
        # The registry is shared by all tests: each has a schema of its own.
        self._name = f"{name}_{secrets.token_hex(4)}"
        self.id = self._registered("before") + 1

    def register(self) -> None:
        """The producers' team mends it."""
        assert self._registered("after") == self.id

    def _registered(self, when: str) -> int:
        schema = json.loads(json.dumps(load("orders.avsc").schema))
        schema["fields"].append({"name": f"{self._name}_{when}", "type": "null", "default": None})
        with Registry(self._registry) as client:
            return client.register(f"{self._name}-{when}-value", json.dumps(schema)).schema_id
