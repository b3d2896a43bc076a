"""One soak from its first record to its verdict.

A fault every 10 to 20 seconds, each healed and recovered from before the next: recovered means that
everything the log held when the fault was over is in, every worker is ready, and every partition
belongs to one of them. How long that takes is measured, and bounded by I8.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from confluent_kafka import KafkaException

from dev.ports import LOOPBACK, accepts, free_port
from dev.process import OwnedProcess, Program
from tests.faults.answers.judge import judge as judge_answers
from tests.faults.answers.sessions import Seen, Sessions
from tests.faults.harness import chain
from tests.faults.harness.bites import Bites
from tests.faults.harness.field import Field
from tests.faults.harness.ground import HEALED_S, Ground
from tests.faults.harness.judge import BUILD, judge
from tests.faults.oracle import Registry, high_watermarks, read_log
from tests.faults.oracle.compare import hold
from tests.faults.oracle.log import LogReadError
from tests.faults.soak.faults import FAULTS, Scene
from tests.faults.soak.load import Load
from tests.faults.soak.watch import Watch
from tests.fixtures.waiting import eventually
from views import CATALOGUE

WORKERS: Final = 3
PARTITIONS: Final = 4
SESSIONS: Final = 3
SESSION_PAUSE_S: Final = 0.15
BACKLOG_ORDERS: Final = 1_500
PER_S: Final = 60
APART_S: Final = (10.0, 17.0)
"""From the start of a fault to the start of the next, unless recovery takes longer."""
DRAINED_S: Final = 120.0
_API_READY_S: Final = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for."""

    minutes: float
    seed: int
    brokers: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Injected:
    """One fault: how often it bit, and how long recovery took once it was over."""

    kind: str
    at_s: float
    bites: int
    recovery_s: float


@dataclass(slots=True)
class Result:
    """Everything that the report tells."""

    plan: Plan
    day: str = ""
    ran_s: float = 0.0
    faults: list[Injected] = field(default_factory=list)
    bites: Mapping[str, int] = field(default_factory=dict)
    anomalies: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    records: int = 0
    sent: int = 0
    transactions: Mapping[str, int] = field(default_factory=dict)
    dead_letters: int = 0
    repeated: list[str] = field(default_factory=list)
    takeovers: int = 0
    fenced: int = 0
    checked: Mapping[str, int] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    answer_s: list[float] = field(default_factory=list)
    refusal_s: list[float] = field(default_factory=list)
    use: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def bit(self) -> list[Injected]:
        """The faults that bit."""
        return [fault for fault in self.faults if fault.bites > 0]

    @property
    def bit_per_minute(self) -> float:
        """Of the time in which faults were injected."""
        return len(self.bit) / max(self.ran_s / 60, 1e-9)


def soak(plan: Plan, say: Say) -> Result:
    """Run it. What is wrong is in the result, by invariant."""
    result, bites = Result(plan), Bites()
    with ExitStack() as at_end:
        servers = at_end.enter_context(Field(brokers=plan.brokers))
        ground = at_end.enter_context(servers.ground(plan.folder, bites, partitions=PARTITIONS))
        api = at_end.enter_context(_api(servers, ground, plan.folder))
        load = Load(ground, seed=plan.seed, per_s=PER_S)
        load.backlog(BACKLOG_ORDERS)
        say(f"a backlog of {load.sent:,} records lies in the log")
        for _ in range(WORKERS):
            ground.worker()
        watched = {f"worker {w.name}": w.process for w in ground.workers} | {"api": api.process}
        watch = Watch(ground.place.dsn, watched).start()
        load.start()
        readers = Sessions(
            [api.url], load.recent, sessions=SESSIONS, seed=plan.seed, pause_s=SESSION_PAUSE_S
        ).start()
        scene = Scene(ground, servers.stack, random.Random(plan.seed))
        began_at = time.monotonic()
        _recovered(ground, HEALED_S * 3)
        _break_things(scene, plan, result, say)
        result.ran_s = time.monotonic() - began_at
        say("healed; draining")
        load.stop()
        _drain(ground, result)
        readers.stop()
        watch.stop()
        result.bites = bites.by_kind()
        result.use = watch.figures()
        _note(result, scene.anomalies)
        _note(result, {"I7 conservation": watch.money_wrong, "I10 bounds": watch.problems()})
        say("judging")
        _judge(ground, result, readers.seen, watch.money_checked)
        _count(ground, load, result)
    return result


@dataclass(frozen=True, slots=True)
class _Api:
    url: str
    process: OwnedProcess


@contextmanager
def _api(servers: Field, ground: Ground, folder: Path) -> Iterator[_Api]:
    """`viewkeeper api` on the ground's database, with the login that can only read."""
    port = free_port()
    program = Program(
        name="api",
        command=[str(Path(sys.executable).with_name("viewkeeper")), "api"],
        cwd=folder,
        environment={
            "PATH": "",
            "VIEWKEEPER_API_DATABASE_URL": servers.reader_dsn(ground),
            "VIEWKEEPER_API_HOST": LOOPBACK,
            "VIEWKEEPER_API_PORT": str(port),
        },
    )
    process = OwnedProcess(program, folder / "api.log")
    process.start()
    try:
        process.wait_ready(lambda: accepts(port), timeout_s=_API_READY_S)
        yield _Api(f"http://{LOOPBACK}:{port}/graphql", process)
    finally:
        process.kill()


def _break_things(scene: Scene, plan: Plan, result: Result, say: Say) -> None:
    """One fault after the other, each kind before any comes again."""
    end_at = time.monotonic() + plan.minutes * 60
    began_at = time.monotonic()
    waiting = threading.Event()
    for kind in _schedule(scene.chance):
        next_at = time.monotonic() + scene.chance.uniform(*APART_S)
        if time.monotonic() >= end_at:
            return
        at_s = time.monotonic() - began_at
        bites = FAULTS[kind](scene)
        recovery_s = _recovered(scene.ground, HEALED_S)
        if recovery_s > HEALED_S:
            missing = _missing(scene.ground)
            result.anomalies["I8 liveness"].append(f"{kind}: not recovered in time: {missing}")
        result.faults.append(Injected(kind, at_s, bites, recovery_s))
        say(f"{at_s:5.0f} s  {kind}: bit {bites}, recovered in {recovery_s:.1f} s")
        waiting.wait(max(0.0, min(next_at, end_at) - time.monotonic()))


def _schedule(chance: random.Random) -> Iterator[str]:
    while True:
        kinds = list(FAULTS)
        chance.shuffle(kinds)
        yield from kinds


def _recovered(ground: Ground, timeout_s: float) -> float:
    """How long it takes until all is well again; more than the time given if it does not."""
    began_at = time.monotonic()
    ends: dict[tuple[str, int], int] = {}

    def well() -> bool:
        try:
            if not ends:
                ends.update(high_watermarks(ground.place.bootstrap, CATALOGUE.topics))
            ground.supervise()
            return _is_well(ground, ends)
        except (psycopg.Error, KafkaException, LogReadError):
            return False

    try:
        eventually(well, timeout_s, "all is well")
    except AssertionError:
        return max(time.monotonic() - began_at, timeout_s + 1e-3)
    return time.monotonic() - began_at


def _is_well(ground: Ground, ends: Mapping[tuple[str, int], int]) -> bool:
    positions = ground.positions()
    if any(positions.get(place, 0) < end for place, end in ends.items()):
        return False
    owners = {worker.owner for worker in ground.alive()}
    if not set(ground.owners().values()) <= owners or len(owners) < WORKERS:
        return False
    return all(worker.ready() for worker in ground.alive())


def _missing(ground: Ground) -> str:
    ready = {worker.name: worker.ready() for worker in ground.workers}
    try:
        return f"positions {ground.positions()}, owners {ground.owners()}, ready {ready}"
    except psycopg.Error as error:
        return f"the database does not answer: {error}; ready {ready}"


def _drain(ground: Ground, result: Result) -> None:
    try:
        ground.wait_until_in(DRAINED_S)
    except AssertionError as error:
        result.anomalies["I8 liveness"].append(f"not drained: {error}")


def _judge(ground: Ground, result: Result, seen: Seen, money_checked: int) -> None:
    place = ground.place
    verdict = judge(
        dsn=place.dsn,
        bootstrap=place.bootstrap,
        registry_url=place.registry_url,
        ledger=ground.ledger,
    )
    result.records = verdict.records
    _note(result, verdict.problems)
    log, _ends = read_log(place.bootstrap, CATALOGUE.topics)
    result.repeated = ground.ledger.repeated(log)
    recorded = hold(place.dsn, BUILD).recorded
    answered = judge_answers(seen.answers, log, Registry(place.registry_url), recorded)
    _note(result, seen.anomalies)
    _note(result, answered.problems)
    result.codes, result.answer_s, result.refusal_s = seen.codes, seen.took_s, seen.refused_s
    result.checked = {
        "answers, each held against the log": answered.judged,
        "positions that they stood at": answered.positions,
        "looks at the money of all views": money_checked,
    }


def _count(ground: Ground, load: Load, result: Result) -> None:
    result.sent = load.sent
    result.transactions = {
        "committed": load.committed,
        "aborted": load.aborted,
        "of unknown outcome": load.unknown_transactions,
    }
    ((result.day,),) = ground.ask("SELECT current_date::text")
    result.takeovers = chain.takeovers(ground.links())
    result.fenced = sum(worker.replaced for worker in ground.workers)
    result.dead_letters = int(ground.ask("SELECT count(*) FROM ingest.dead_letters")[0][0])


def _note(result: Result, problems: Mapping[str, list[str]]) -> None:
    for invariant, said in problems.items():
        result.anomalies[invariant] += said
