"""One log, one database, and workers on them, with everything in between that can break.

What a fault test works with: it sends traffic, starts workers, does its harm, and at the end asks
for the verdict. Stands apart from `field` because the soak and the fail-over bring other servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.faults.harness import chain
from tests.faults.harness.bites import Bites
from tests.faults.harness.judge import BUILD, Verdict, judge
from tests.faults.harness.pgproxy import PgProxy
from tests.faults.harness.producers import Ledger, Trickle, send
from tests.faults.harness.registryfront import RegistryFront
from tests.faults.harness.workers import SESSION_TIMEOUT_S, WorkerProcess
from tests.faults.oracle import high_watermarks
from tests.faults.oracle.log import LogReadError
from tests.fixtures.contracts import SchemaIds
from tests.fixtures.traffic import Record, Traffic
from tests.fixtures.waiting import PATIENCE_S, eventually
from views import CATALOGUE

HEALED_S: Final = SESSION_TIMEOUT_S + 30.0
"""I8: lag 0 within session timeout + 30 s of healing. The soak measures it; tests only wait."""
_SEEDS_APART: Final = 100_000
FAILPOINTS_FILE: Final = "failpoints"
Positions = Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a ground lies."""

    dsn: str
    postgres_port: int
    bootstrap: str
    registry_url: str
    ids: SchemaIds
    group: str
    seed: int = 1
    """Of the run: another one has other traffic in every test."""


class Ground:
    """Used as a context: leaving it kills its workers and closes its proxies."""

    def __init__(
        self,
        place: Place,
        folder: Path,
        bites: Bites,
        *,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.place = place
        self.bites = bites
        self.ledger = Ledger()
        self.proxy = PgProxy(place.postgres_port, bites)
        self.registry = RegistryFront(place.registry_url, bites)
        self.workers: list[WorkerProcess] = []
        self._folder = folder
        self._settings = dict(settings or {})
        self._at_end = ExitStack()

    def __enter__(self) -> Self:
        self._at_end.enter_context(self.proxy)
        self._at_end.enter_context(self.registry)
        chain.install(self.place.dsn, BUILD)
        return self

    def __exit__(self, *_exc: object) -> None:
        for worker in self.workers:
            worker.kill()
        self._at_end.close()

    # Traffic.

    def traffic(
        self, orders: int, *, seed: int = 1, prefix: str = "order", **shares: Any
    ) -> Iterator[Record]:
        """Hostile traffic of so many orders: about seven records of each."""
        of_run = seed + _SEEDS_APART * (self.place.seed - 1)
        ids = self.place.ids
        return iter(Traffic(seed=of_run, orders=orders, ids=ids, prefix=prefix, **shares))

    def send(self, records: Iterable[Record]) -> None:
        """Send records and wait until each is acknowledged."""
        send(self.place.bootstrap, records, self.ledger)

    def trickle(self, records: Iterable[Record], *, per_s: int = 200) -> Trickle:
        """Send records at a steady pace until it is stopped."""
        trickle = Trickle(self.place.bootstrap, records, self.ledger, per_s=per_s)
        self._at_end.callback(trickle.stop)
        return trickle

    # Workers.

    def worker(self, **settings: str) -> WorkerProcess:
        """Start another worker; settings by their names without `VIEWKEEPER_`."""
        worker = self._made(settings)
        worker.start()
        return worker

    def doomed(self, failpoints: str, **settings: str) -> WorkerProcess:
        """Start another worker that meets faults on purpose, and may be gone before it answers."""
        evidence = str(self._folder / FAILPOINTS_FILE)
        armed = {"FAILPOINTS": failpoints, "FAILPOINTS_FILE": evidence}
        worker = self._made(settings | armed)
        worker.launch()
        return worker

    def met(self, worker: WorkerProcess) -> list[str]:
        """The faults that a doomed worker met, as `point:action:passing`, in their order."""
        file = self._folder / FAILPOINTS_FILE
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [":".join(words) for pid, *words in lines if int(pid) == worker.process.pid]

    def _made(self, settings: Mapping[str, str]) -> WorkerProcess:
        worker = WorkerProcess(
            f"{len(self.workers) + 1}",
            self._folder,
            {
                "VIEWKEEPER_DATABASE_URL": self.proxy.through(self.place.dsn),
                "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": self.place.bootstrap,
                "VIEWKEEPER_SCHEMA_REGISTRY_URL": self.registry.url,
                "VIEWKEEPER_GROUP_ID": self.place.group,
                **self._settings,
                **{f"VIEWKEEPER_{name}": value for name, value in settings.items()},
            },
        )
        self.workers.append(worker)
        return worker

    def supervise(self) -> None:
        """Start again whichever worker ended and asked for it."""
        for worker in self.workers:
            worker.supervise()

    def alive(self) -> list[WorkerProcess]:
        """The workers whose process exists."""
        return [worker for worker in self.workers if worker.process.running]

    def admin(self) -> AdminClient:
        """A client that may change topics."""
        return AdminClient({"bootstrap.servers": self.place.bootstrap, "log_level": 0})

    # What the database says.

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """One query, directly at the server."""
        with psycopg.connect(self.place.dsn, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def positions(self) -> dict[tuple[str, int], int]:
        """The next offset of each partition."""
        rows = self.ask(f"SELECT topic, partition, next_offset FROM {BUILD}.positions")
        return {(topic, partition): offset for topic, partition, offset in rows}

    def owners(self) -> dict[tuple[str, int], str]:
        """Who drew the newest epoch of each partition."""
        rows = self.ask(f"SELECT topic, partition, owner FROM {BUILD}.positions WHERE owner <> ''")
        return {(topic, partition): owner for topic, partition, owner in rows}

    def owned_by(self, worker: WorkerProcess) -> set[tuple[str, int]]:
        """The partitions whose newest epoch a worker drew."""
        return {partition for partition, owner in self.owners().items() if owner == worker.owner}

    def links(self) -> list[chain.Link]:
        """Every change of a position so far."""
        return chain.read(self.place.dsn)

    # Waiting.

    def wait_ready(self, worker: WorkerProcess) -> None:
        """Return when its `/readyz` says so."""
        self._eventually(worker.ready, PATIENCE_S, f"worker {worker.name} is ready")

    def wait_for_share(self, *workers: WorkerProcess, timeout_s: float = PATIENCE_S) -> None:
        """Return when each of the workers owns partitions, and they together all of them."""

        def shared() -> bool:
            owners = self.owners()
            partitions = len(high_watermarks(self.place.bootstrap, CATALOGUE.topics))
            return len(owners) == partitions and set(owners.values()) == {w.owner for w in workers}

        self._eventually(shared, timeout_s, "the workers share all partitions")

    def wait_for_progress(self, events: int = 1, timeout_s: float = PATIENCE_S) -> None:
        """Return when the positions have moved by so many offsets."""
        before = sum(self.positions().values())
        self._eventually(
            lambda: sum(self.positions().values()) >= before + events,
            timeout_s,
            f"{events} more offsets are in",
        )

    def wait_until_in(self, timeout_s: float = PATIENCE_S) -> None:
        """Return when everything that the log holds now is in."""
        ends = high_watermarks(self.place.bootstrap, CATALOGUE.topics)
        self._eventually(lambda: not self._behind(ends), timeout_s, "every partition is at its end")

    def wait_for_backlog(self, events: int, timeout_s: float = PATIENCE_S) -> None:
        """Return when so many offsets lie behind the positions."""
        eventually(
            lambda: self._backlog() >= events, timeout_s, f"{events} offsets wait to be read"
        )

    def _eventually(self, probe: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait, under supervision; where it is in vain, tell how everybody stands."""

        def supervised() -> bool:
            self.supervise()
            return probe()

        try:
            eventually(supervised, timeout_s, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self._state()}") from error

    def _state(self) -> str:
        workers = {w.name: w.problems() if w.process.running else "ended" for w in self.workers}
        words = [f"worker {w.name}:\n{w.whereabouts()}" for w in self.alive()]
        try:
            ends = high_watermarks(self.place.bootstrap, CATALOGUE.topics)
            sessions = self.ask(
                "SELECT application_name, state, wait_event, now() - state_change, left(query, 80)"
                " FROM pg_stat_activity WHERE datname = current_database()"
            )
            words.append("\n".join(map(str, sessions)))
            stand = f"behind: {self._behind(ends)} of {ends}"
        except (psycopg.Error, KafkaException, LogReadError) as error:
            stand = f"a server does not answer ({error})"
        return "\n".join([f"{stand}; workers: {workers}", *words])

    def _backlog(self) -> int:
        ends = high_watermarks(self.place.bootstrap, CATALOGUE.topics)
        return sum(ends.values()) - sum(self.positions().values())

    def _behind(self, ends: Positions) -> Positions:
        positions = self.positions()
        return {p: end for p, end in ends.items() if positions.get(p, 0) < end}

    # The verdict.

    def verdict(self) -> Verdict:
        """What is wrong, once everything is in."""
        return judge(
            dsn=self.place.dsn,
            bootstrap=self.place.bootstrap,
            registry_url=self.place.registry_url,
            ledger=self.ledger,
        )

    def must_be_right(self, timeout_s: float = PATIENCE_S) -> None:
        """Everything gets in, and nothing is wrong."""
        self.wait_until_in(timeout_s)
        verdict = self.verdict()
        assert verdict.anomalies == 0, str(verdict)
