"""The whole product on embedded servers: migrated, contracts in force, worker and API running.

Stands apart from `stack.py`, which knows no more of the product than its settings. Worker and API
are processes of their own, started by the commands that everybody uses.
"""

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from confluent_kafka.admin import AdminClient, NewTopic

from dev.cache import Say, home_dir
from dev.ports import LOOPBACK, free_port
from dev.process import OwnedProcess, Program, ServerFailedError
from dev.stack import After, Stack
from schemas import contracts, register
from schemas.registry import Registry
from views import CATALOGUE

PARTITIONS: Final = 3
KEPT_FOR_EVER: Final = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
API_PORT: Final = 8000
OPS_PORT: Final = 9464
ADMIN_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0
MIGRATION_TIMEOUT_S: Final = 60.0
ALEMBIC: Final = Path(__file__).parents[1] / "alembic.ini"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the two services listen."""

    api_port: int
    ops_port: int

    @property
    def graphql(self) -> str:
        """The endpoint of the API."""
        return f"http://{LOOPBACK}:{self.api_port}/graphql"

    @property
    def ops(self) -> str:
        """Health and metrics of the worker."""
        return f"http://{LOOPBACK}:{self.ops_port}"


class System:
    """Everything, started by `start` and ended by `close`. Logs lie in `logs`."""

    def __init__(self, *, say: Say) -> None:
        self._say = say
        self.stack = Stack(say=say)
        self.address = Address(free_port(API_PORT), free_port(OPS_PORT))
        self.logs = home_dir() / "demo"
        self._services: list[OwnedProcess] = []
        self._migrated = threading.Event()
        self._has_tables = False

    def start(self) -> None:
        """Servers side by side; what each is needed for as soon as it answers.

        The API starts while Kafka still boots, the worker while the registry may. Returns when
        contracts are in force; the first answer tells when everything works.
        """
        if self.address.api_port != API_PORT:
            self._say(f"port {API_PORT} is taken: the API uses {self.address.api_port}")
        if self.address.ops_port != OPS_PORT:
            self._say(f"port {OPS_PORT} is taken: the worker uses {self.address.ops_port}")
        self.stack.start(
            after=After(
                postgres=self._after_postgres,
                kafka=self._after_kafka,
                registry=self._register_contracts,
            )
        )

    def close(self) -> None:
        """Stop the services, then the servers; harmless when they were never started."""
        for service in reversed(self._services):
            service.request_stop()
        for service in reversed(self._services):
            service.stop(timeout_s=STOP_TIMEOUT_S)
        self.stack.close()

    def raise_if_ended(self) -> None:
        """ServerFailedError: the worker or the API has ended; the message holds its last words."""
        for service in self._services:
            if not service.running:
                raise ServerFailedError(
                    f"{service.program.name} has ended; the end of {service.log_path}:\n"
                    f"{service.log_tail()}"
                )

    def environment(self) -> dict[str, str]:
        """The settings of every command that works on this system."""
        return {
            **self.stack.environment(),
            "VIEWKEEPER_MODE": "demo",
            "VIEWKEEPER_API_HOST": LOOPBACK,
            "VIEWKEEPER_API_PORT": str(self.address.api_port),
            "VIEWKEEPER_OPS_PORT": str(self.address.ops_port),
        }

    def _after_postgres(self) -> None:
        try:
            migrate(self.stack.database_url)
            self._has_tables = True
        finally:
            self._migrated.set()
        self._say("tables are migrated")
        self._start_service("api")

    def _after_kafka(self) -> None:
        create_topics(self.stack.kafka.admin())
        self._say(f"topics {', '.join(CATALOGUE.topics)} are there, {PARTITIONS} partitions each")
        if not self._migrated.wait(MIGRATION_TIMEOUT_S):
            raise ServerFailedError(
                f"the tables are not migrated after {MIGRATION_TIMEOUT_S:g} s: the worker was not"
                " started"
            )
        if self._has_tables:  # a migration that failed is raised by its own thread
            self._start_service("ingest")

    def _register_contracts(self) -> None:
        with Registry(self.stack.registry.url) as registry:
            for stream in CATALOGUE.streams:
                contract = contracts.load(stream.contract)
                register.register(registry, topic=stream.topic, contract=contract)
        self._say("contracts are registered, level FULL")

    def _start_service(self, name: str) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        log.unlink(missing_ok=True)
        program = Program(
            name=f"viewkeeper {name}",
            command=[sys.executable, "-m", "cli.main", name],
            cwd=self.logs,  # where no .env of another system lies
            environment={**_inherited(), **self.environment()},
        )
        service = OwnedProcess(program, log)
        service.start()
        self._services.append(service)


def migrate(database_url: str) -> None:
    """`alembic upgrade head` in this process, which keeps its own way of logging."""
    config = Config(ALEMBIC)
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


def create_topics(admin: AdminClient) -> list[str]:
    """Create the topics of the catalogue that are missing; their names.

    They are kept for ever so that views can be rebuilt.
    """
    there = admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics
    missing = [
        NewTopic(name, num_partitions=PARTITIONS, replication_factor=-1, config=KEPT_FOR_EVER)
        for name in CATALOGUE.topics
        if name not in there
    ]
    created = admin.create_topics(missing) if missing else {}
    for done in created.values():
        done.result(ADMIN_TIMEOUT_S)
    return list(created)


def _inherited() -> Mapping[str, str]:
    """Our environment without settings of ours: those of another system must not leak in."""
    return {n: v for n, v in os.environ.items() if not n.startswith("VIEWKEEPER_")}
