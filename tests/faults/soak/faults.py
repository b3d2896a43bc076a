"""What a soak breaks: each fault does its harm, heals it, and says how often it bit.

A fault answers with the number of things that were *seen* to happen: a process that ended, a new
owner, an answer of the proxy. 0 means that it was asked for and did not bite. What must not happen
while it lasts is an anomaly, by invariant.
"""

from __future__ import annotations

import os
import random
import signal
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import psycopg
from confluent_kafka import KafkaException

from dev.stack import Stack
from ingest.watermarks import answers
from tests.faults.harness.ground import Ground
from tests.faults.harness.pgproxy import (
    CUT,
    CUT_AFTER,
    CUT_BEFORE,
    LATE,
    LATE_REFUSED,
    REFUSED,
)
from tests.faults.harness.producers import ABORTED, OpenTransaction, producer
from tests.faults.harness.workers import SESSION_TIMEOUT_S, WorkerProcess
from tests.faults.oracle import high_watermarks
from tests.faults.oracle.log import LogReadError
from tests.fixtures.waiting import eventually, let_last
from views import CATALOGUE

FROZEN_S: Final = 2.5 * SESSION_TIMEOUT_S
ASKED_S: Final = 2.0
SEEN_S: Final = 20.0
"""How long a fault waits for the evidence that it bit."""


@dataclass(slots=True)
class Scene:
    """What there is to break, and what went wrong meanwhile."""

    ground: Ground
    stack: Stack
    chance: random.Random
    anomalies: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def victim(self) -> WorkerProcess:
        """Any worker but the first: that one lives through it all, so that growth would show."""
        return self.chance.choice(self.ground.workers[1:])

    def pause(self, least_s: float, most_s: float) -> None:
        """Let a fault last."""
        let_last(self.chance.uniform(least_s, most_s))

    def bites(self, kinds: tuple[str, ...], before: int, *, least: int) -> int:
        """How often these kinds bit since; waits a while for so many."""

        def since() -> int:
            return sum(self.ground.bites.of(kind) for kind in kinds) - before

        return _within(since, least)


Fault = Callable[[Scene], int]


def _within(count: Callable[[], int], least: int) -> int:
    """The count as soon as it is high enough, or what it came to in time."""
    try:
        eventually(lambda: count() >= least, SEEN_S, "evidence")
    except AssertionError:
        return count()
    return count()


def _seen(probe: Callable[[], bool], timeout_s: float = SEEN_S) -> bool:
    """Whether it comes true in time. A server that is away answers nothing yet."""

    def quiet() -> bool:
        try:
            return probe()
        except (psycopg.Error, KafkaException, LogReadError):
            return False

    try:
        eventually(quiet, timeout_s, "evidence")
    except AssertionError:
        return False
    return True


# Workers.


def worker_killed(scene: Scene) -> int:
    """SIGKILL; started again soon, or after others took over."""
    worker = scene.victim()
    worker.kill()
    gone = not worker.process.running
    scene.pause(0.0, 2 * SESSION_TIMEOUT_S)
    worker.start()
    return int(gone)


def every_worker_killed(scene: Scene) -> int:
    """All but the first at once."""
    some = scene.ground.workers[1:]
    for worker in some:
        worker.kill()
    gone = sum(not worker.process.running for worker in some)
    for worker in some:
        worker.start()
    return gone


def worker_stopped(scene: Scene) -> int:
    """SIGTERM in the middle of its work: it ends by itself, with 0."""
    worker = scene.victim()
    moving = worker.process.running
    code = worker.stop()
    if code != 0:
        scene.anomalies["I8 liveness"].append(f"a worker that was asked to end ended with {code}")
    worker.start()
    return int(moving and code == 0)


def worker_frozen(scene: Scene) -> int:
    """SIGSTOP past its session: it bit if every partition of its has a new owner."""
    worker = scene.chance.choice(scene.ground.workers)
    theirs = scene.ground.owned_by(worker)
    worker.freeze()
    scene.pause(FROZEN_S, FROZEN_S + 1)
    taken = _seen(lambda: not scene.ground.owned_by(worker))
    worker.thaw()
    return len(theirs) if taken else 0


def worker_frozen_in_a_transaction(scene: Scene) -> int:
    """SIGSTOP between its fence and its COMMIT: the taker-over must end its transaction."""
    held = scene.ground.proxy.hold()
    caught = held.caught.wait(SEEN_S)
    frozen = [w for w in scene.ground.workers if held.application.endswith(w.owner)]
    if not caught or not frozen:
        held.let_go.set()
        return 0
    frozen[0].freeze()
    ended = held.server_gone.wait(2 * SEEN_S)
    held.let_go.set()
    frozen[0].thaw()
    return int(ended)


# The database.


def _commits(kind: str, times: int) -> Fault:
    def spoilt(scene: Scene) -> int:
        kinds = (kind, LATE_REFUSED) if kind == LATE else (kind,)
        before = sum(scene.ground.bites.of(each) for each in kinds)
        scene.ground.proxy.spoil(kind, times, late_s=scene.chance.uniform(0.1, 1.0))
        return scene.bites(kinds, before, least=times)

    spoilt.__doc__ = f"{kind}, {times} times."
    return spoilt


def connections_cut(scene: Scene) -> int:
    """Every connection of the workers, at once."""
    before = scene.ground.bites.of(CUT)
    scene.ground.proxy.cut_all()
    return scene.ground.bites.of(CUT) - before


def connections_refused(scene: Scene) -> int:
    """Cut, and none taken for a while."""
    before = scene.ground.bites.of(REFUSED)
    scene.ground.proxy.refusing = True
    scene.ground.proxy.cut_all()
    scene.pause(2, 5)
    bit = scene.bites((REFUSED,), before, least=1)
    scene.ground.proxy.refusing = False
    return bit


def database_stalled(scene: Scene) -> int:
    """Nothing flows between workers and database: it bit if no position moved."""
    scene.ground.proxy.flowing.clear()
    scene.pause(0.5, 1)
    before = scene.ground.positions()
    scene.pause(2, 6)
    still = scene.ground.positions() == before
    scene.ground.proxy.flowing.set()
    return int(still)


def postgres_killed(scene: Scene) -> int:
    """SIGKILL of the postmaster; recovery from its log."""
    scene.stack.postgres.kill()
    gone = not scene.stack.postgres.process.running
    scene.pause(0, 3)
    scene.stack.postgres.start()
    return int(gone)


def postgres_stopped_at_once(scene: Scene) -> int:
    """Immediate stop: no checkpoint, every client cut."""
    scene.stack.postgres.stop("immediate")
    gone = not scene.stack.postgres.process.running
    scene.pause(0, 3)
    scene.stack.postgres.start()
    return int(gone)


WORKERS: Final = "viewkeeper ingest%"
READERS: Final = "viewkeeper-api%"
"""How the sessions of workers, and of API processes, name themselves."""


def _backend_killed(whose: str) -> Fault:
    def killed(scene: Scene) -> int:
        theirs = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s"
        pids = [pid for (pid,) in scene.ground.ask(theirs, whose)]
        if not pids:
            return 0
        pid = scene.chance.choice(pids)
        os.kill(pid, signal.SIGKILL)
        there = "SELECT pid FROM pg_stat_activity WHERE pid = %s"
        return int(_seen(lambda: not scene.ground.ask(there, pid)))

    killed.__doc__ = f"SIGKILL of one backend of {whose}: the whole server starts over."
    return killed


def _sessions_ended(whose: str) -> Fault:
    def ended(scene: Scene) -> int:
        end = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s"
        )
        # Nobody but the superuser may end the sessions of both logins.
        with psycopg.connect(scene.stack.postgres.dsn(), autocommit=True) as administrator:
            return sum(ended for (ended,) in administrator.execute(end, (whose,)))

    ended.__doc__ = f"An administrator ends every session of {whose}."
    return ended


def positions_locked(scene: Scene) -> int:
    """A stranger holds every position row for a while."""
    with psycopg.connect(scene.ground.place.dsn, application_name="a stranger") as connection:
        connection.execute("SELECT FROM build_1.positions FOR UPDATE")
        scene.pause(2, 5)
        waiting = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        ).fetchone()
    return int(waiting is not None and waiting[0] > 0)


# The broker.


def broker_killed(scene: Scene) -> int:
    """SIGKILL; the same broker comes back with its data."""
    broker = scene.chance.choice(list(scene.stack.kafka.brokers))
    broker.kill()
    gone = not broker.process.running
    scene.pause(0, 3)
    broker.start()
    scene.stack.kafka.wait_ready()
    return int(gone)


def broker_frozen(scene: Scene) -> int:
    """SIGSTOP: its connections stay open; it bit if a question to it had no answer."""
    broker = scene.chance.choice(list(scene.stack.kafka.brokers))
    broker.freeze()
    silent = not answers({"bootstrap.servers": broker.address}, "orders", ASKED_S)
    scene.pause(1, 4)
    broker.thaw()
    return int(silent)


def transaction_left_open(scene: Scene) -> int:
    """It pins the last stable offset: it bit if something waited behind it."""
    thrown = scene.ground.traffic(3, seed=scene.chance.randrange(1 << 30), prefix=f"{ABORTED}open")
    records = islice(thrown, 6)
    left_open = OpenTransaction(scene.ground.place.bootstrap, records, scene.ground.ledger)
    ends = high_watermarks(scene.ground.place.bootstrap, CATALOGUE.topics)
    scene.pause(2, 5)
    stands = scene.ground.positions()
    held = sum(stands.get(at, 0) <= first < ends[at] for at, first in left_open.first.items())
    left_open.abort()
    return held


def producer_fenced(scene: Scene) -> int:
    """A second producer of the same name: what the first had sent is aborted, and it is told so."""
    name = {"transactional.id": f"fenced-{scene.chance.randrange(1 << 30)}"}
    thrown = scene.ground.traffic(3, seed=scene.chance.randrange(1 << 30), prefix=f"{ABORTED}old")
    old = producer(scene.ground.place.bootstrap, **name)
    old.init_transactions(SEEN_S)
    old.begin_transaction()
    for record in islice(thrown, 6):
        old.produce(record.topic, record.value, record.key, timestamp=record.timestamp_ms)
    old.flush(SEEN_S)
    producer(scene.ground.place.bootstrap, **name).init_transactions(SEEN_S)
    try:
        old.commit_transaction(SEEN_S)
    except KafkaException as error:
        return int(error.args[0].fatal())
    scene.anomalies["I3 producers"].append("a fenced producer could commit")
    return 0


# The registry.


def _registry(kind: str) -> Fault:
    def spoilt(scene: Scene) -> int:
        name = f"registry: {kind}"
        before = scene.ground.bites.of(name)
        worker = scene.victim()
        worker.kill()
        scene.ground.registry.spoil(kind, 10_000)
        worker.start()
        bit = scene.bites((name,), before, least=1)
        scene.pause(1, 4)
        scene.ground.registry.heal()
        return bit

    spoilt.__doc__ = f"Answers nothing but '{kind}' to a worker that knows no schema yet."
    return spoilt


FAULTS: Final[Mapping[str, Fault]] = {
    "worker killed": worker_killed,
    "all workers but one killed": every_worker_killed,
    "worker stopped": worker_stopped,
    "worker frozen past its session": worker_frozen,
    "worker frozen in a transaction": worker_frozen_in_a_transaction,
    CUT_BEFORE: _commits(CUT_BEFORE, 4),
    CUT_AFTER: _commits(CUT_AFTER, 4),
    LATE: _commits(LATE, 4),
    "database connections cut": connections_cut,
    "database connections refused": connections_refused,
    "database stalled": database_stalled,
    "PostgreSQL killed": postgres_killed,
    "PostgreSQL stopped at once": postgres_stopped_at_once,
    "a worker's backend killed": _backend_killed(WORKERS),
    "an API's backend killed": _backend_killed(READERS),
    "the workers' sessions ended": _sessions_ended(WORKERS),
    "the API's sessions ended": _sessions_ended(READERS),
    "positions locked by a stranger": positions_locked,
    "broker killed": broker_killed,
    "broker frozen": broker_frozen,
    "transaction left open": transaction_left_open,
    "producer fenced": producer_fenced,
    "registry server error": _registry("server error"),
    "registry unavailable": _registry("unavailable"),
    "registry cut": _registry("cut"),
    "registry slow": _registry("slow"),
}
