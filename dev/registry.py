"""A real Schema Registry (Apicurio, by the Confluent API) on loopback.

Stands apart because it knows Apicurio's settings. Its default compatibility level is NONE: whoever
registers schemas sets the level first (`schemas/registry.py` does).
"""

import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dev.cache import Say, registry_home, say_nothing
from dev.java import JavaProgram, java_environment
from dev.ports import LOOPBACK, free_port
from dev.process import OwnedProcess, Program

READY_TIMEOUT_S: Final = 90.0
HEAP_MB: Final = 384
API_PATH: Final = "/apis/ccompat/v7"
MAX_SUBJECTS: Final = 100_000


@dataclass(frozen=True, slots=True)
class PostgresStorage:
    """Schemas in a database of their own, which must exist."""

    host: str
    port: int
    dbname: str
    user: str
    password: str


class Registry:
    """One registry. Schemas and their ids survive stop, kill and restart; `close` removes them.

    They lie in a file of its own, or in PostgreSQL if `storage` is given.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        storage: PostgresStorage | None = None,
        say: Say = say_nothing,
        program: JavaProgram | None = None,
        niceness: int = 0,
    ) -> None:
        self.port = free_port(port)
        self._management_port = free_port()
        self.home = Path(tempfile.mkdtemp(prefix="viewkeeper-registry-"))
        self._storage = storage
        self._say = say
        self._program = program
        self._niceness = niceness
        self._process: OwnedProcess | None = None

    @property
    def url(self) -> str:
        """The base address for clients of the Confluent API."""
        return f"http://{LOOPBACK}:{self.port}{API_PATH}"

    @property
    def process(self) -> OwnedProcess:
        """The JVM, for faults that go past `stop` and `kill`."""
        if self._process is None:
            raise RuntimeError("the registry has not been started")
        return self._process

    def start(self, command: Callable[..., list[str]] | None = None) -> None:
        """Start, and return when the API answers. `command` as in `KafkaCluster.start`."""
        program = self._program = self._program or registry_program(self._say)
        if self._process is None:
            self._process = self._own((command or program.command)())
        self._process.start()
        self._process.wait_ready(self.answers, timeout_s=READY_TIMEOUT_S)

    def stop(self, *, timeout_s: float = 15.0) -> None:
        """Ask the registry to end, and wait."""
        if self._process is not None:
            self._process.stop(timeout_s=timeout_s)

    def restart(self) -> None:
        """Stop and start on the same port and storage."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()

    def freeze(self) -> None:
        """SIGSTOP: connections are taken and nothing answers."""
        self.process.freeze()

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.thaw()

    def close(self) -> None:
        """End at once and remove the storage."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def answers(self) -> bool:
        """Whether the API lists subjects now."""
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _own(self, command: list[str]) -> OwnedProcess:
        settings = {**self._http_settings(), **self._storage_settings()}
        options = [f"-D{name}={value}" for name, value in settings.items()]
        program = Program(
            name="schema registry",
            command=[command[0], *options, *command[1:]],
            cwd=self.home,
            environment=java_environment(),
            niceness=self._niceness,
        )
        return OwnedProcess(program, self.home / "registry.log")

    def _http_settings(self) -> dict[str, str]:
        return {
            "quarkus.http.host": LOOPBACK,
            "quarkus.http.port": str(self.port),
            "quarkus.http.access-log.enabled": "false",
            # By default the management port is 9000 on every interface.
            "quarkus.management.host": LOOPBACK,
            "quarkus.management.port": str(self._management_port),
            "quarkus.log.level": "WARN",
            "quarkus.banner.enabled": "false",
            "quarkus.otel.sdk.disabled": "true",
            "apicurio.ccompat.max-subjects": str(MAX_SUBJECTS),
        }

    def _storage_settings(self) -> dict[str, str]:
        storage = self._storage
        if storage is None:
            # H2 writes half a second after a commit unless told not to: a kill would lose schemas.
            url = f"jdbc:h2:file:{self.home / 'schemas'};WRITE_DELAY=0"
            return _sql_settings("h2", url, user="sa", password="sa")
        url = f"jdbc:postgresql://{storage.host}:{storage.port}/{storage.dbname}"
        return _sql_settings("postgresql", url, user=storage.user, password=storage.password)


def registry_program(say: Say) -> JavaProgram:
    """The JVM program of the registry; downloads it if it is not there."""
    jar = registry_home(say) / "quarkus-run.jar"
    return JavaProgram(name="apicurio", entry=("-jar", str(jar)), heap_mb=HEAP_MB)


def _sql_settings(kind: str, url: str, *, user: str, password: str) -> dict[str, str]:
    return {
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": kind,
        "apicurio.datasource.url": url,
        "apicurio.datasource.username": user,
        "apicurio.datasource.password": password,
    }
