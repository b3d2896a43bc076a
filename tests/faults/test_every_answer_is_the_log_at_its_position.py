"""While workers and the database are killed, an answer is the log up to the answer's own position.

All of the answer, whatever it asks for and whichever API process gives it: so it is one snapshot.
No session goes back, and whoever gets no answer is told so by a declared code.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tests.faults.answers.judge import Judgement, judge
from tests.faults.answers.questions import QUERIES
from tests.faults.answers.sessions import Sessions
from tests.faults.harness.field import Field
from tests.faults.harness.ground import HEALED_S, Ground
from tests.faults.harness.judge import BUILD
from tests.faults.oracle import Registry, read_log
from tests.faults.oracle.compare import hold
from tests.faults.soak.faults import FAULTS, Scene
from tests.fixtures.apis import api_process
from tests.fixtures.reports import table_rows, write_page
from tests.fixtures.traffic import Record
from tests.fixtures.waiting import eventually
from views import CATALOGUE

ORDERS_AT_ONCE: Final = 4_000
PER_S: Final = 120
POISON: Final = 0.002
RECENT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything. `between`: answers that must come before the next fault."""

    answers: int
    between: int
    sessions: int
    pause_s: float
    processes: int
    workers: int
    kinds: tuple[str, ...]


SMALL: Final = Plan(
    answers=500,
    between=50,
    sessions=4,
    pause_s=0.02,
    processes=2,
    workers=2,
    kinds=("worker killed", "a worker's backend killed", "the API's sessions ended"),
)
LARGE: Final = Plan(
    answers=50_000,
    between=150,
    sessions=12,
    pause_s=0.005,
    processes=3,
    workers=3,
    kinds=(
        "worker killed",
        "all workers but one killed",
        "worker frozen past its session",
        "a worker's backend killed",
        "an API's backend killed",
        "the workers' sessions ended",
        "the API's sessions ended",
        "PostgreSQL killed",
        "PostgreSQL stopped at once",
    ),
)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run came to."""

    sessions: Sessions
    judgement: Judgement
    faults: list[tuple[str, int]]
    took_s: float

    @property
    def problems(self) -> dict[str, list[str]]:
        """What must not be, by invariant."""
        names = ("I4 snapshots", "I5 sessions", "I6 positions", "I11 honesty")
        found = (self.sessions.seen.anomalies, self.judgement.problems)
        return {name: [said for some in found for said in some.get(name, ())] for name in names}


def test_every_answer_is_the_log_at_its_own_position(
    field: Field, ground: Ground, tmp_path: Path
) -> None:
    _must_be_right(_take(SMALL, field, ground, tmp_path), ground, SMALL)


@pytest.mark.proof
def test_fifty_thousand_answers_are_the_log_at_their_own_positions(
    field: Field, ground: Ground, tmp_path: Path
) -> None:
    taken = _take(LARGE, field, ground, tmp_path)
    _report(taken, ground)
    _must_be_right(taken, ground, LARGE)


def _must_be_right(taken: Taken, ground: Ground, plan: Plan) -> None:
    assert not any(taken.problems.values()), taken.problems
    assert taken.judgement.judged == taken.sessions.count >= plan.answers
    seen = taken.sessions.seen
    assert {answer.question.kind for answer in seen.answers} == {*QUERIES}
    assert len(seen.by_process) == plan.processes, "every process has answered"
    assert taken.judgement.positions > len(taken.faults), "the views have moved"
    ground.must_be_right()


def _take(plan: Plan, field: Field, ground: Ground, folder: Path) -> Taken:
    recent: deque[str] = deque(maxlen=RECENT)
    began_at = time.monotonic()
    with ExitStack() as at_end:
        urls = [
            _api(at_end, field, ground, folder / f"api-{number}")
            for number in range(plan.processes)
        ]
        trickle = ground.trickle(_noted(_endless(ground), recent), per_s=PER_S)
        for _ in range(plan.workers):
            ground.worker()
        ground.wait_for_progress(50)
        sessions = Sessions(
            urls, recent, sessions=plan.sessions, seed=72, pause_s=plan.pause_s
        ).start()
        faults = _break_things(Scene(ground, field.stack, random.Random(73)), sessions, plan)
        trickle.stop()
        ground.wait_until_in()
        sessions.stop()
    return Taken(sessions, _judged(sessions, ground), faults, time.monotonic() - began_at)


def _api(at_end: ExitStack, field: Field, ground: Ground, folder: Path) -> str:
    folder.mkdir()
    served = api_process(field.reader_dsn(ground), folder, api_connections=6)
    return at_end.enter_context(served).address


def _endless(ground: Ground) -> Iterator[Record]:
    for turn in count():
        yield from ground.traffic(ORDERS_AT_ONCE, seed=turn, prefix=f"turn{turn}", poison=POISON)


def _noted(records: Iterable[Record], recent: deque[str]) -> Iterator[Record]:
    for record in records:
        if record.kind == "event" and record.key is not None:
            recent.append(record.key.decode())
        yield record


def _break_things(scene: Scene, sessions: Sessions, plan: Plan) -> list[tuple[str, int]]:
    """Every kind in turn, again and again, with answers in between, until there are enough."""
    done: list[tuple[str, int]] = []
    while sessions.count < plan.answers or len(done) < len(plan.kinds):
        for kind in scene.chance.sample(plan.kinds, len(plan.kinds)):
            bit = FAULTS[kind](scene)
            scene.ground.bites.bit(kind, bit)
            done.append((kind, bit))
            print(f"{sessions.count} answers; {kind}: bit {bit}", flush=True)
            wanted = sessions.count + plan.between
            eventually(
                lambda: sessions.count >= wanted,  # noqa: B023 - waited for here and now
                HEALED_S,
                f"answers come again after: {kind}",
            )
            scene.ground.wait_for_progress(20)
    assert {kind for kind, bit in done if bit} == {*plan.kinds}, f"not every fault bit: {done}"
    return done


def _judged(sessions: Sessions, ground: Ground) -> Judgement:
    place = ground.place
    log, _ = read_log(place.bootstrap, CATALOGUE.topics)
    recorded = hold(place.dsn, BUILD).recorded
    return judge(sessions.seen.answers, log, Registry(place.registry_url), recorded)


def _report(taken: Taken, ground: Ground) -> None:
    seen = taken.sessions.seen
    asked = Counter(answer.question.kind for answer in seen.answers)
    injected = Counter(kind for kind, _ in taken.faults)
    bites: Counter[str] = Counter()
    for kind, bit in taken.faults:
        bites[kind] += bit
    wrong = [f"- {name}: {said}" for name, found in taken.problems.items() for said in found[:5]]
    write_page(
        "answers",
        _PAGE,
        dsn=ground.place.dsn,
        verdict="**failed**" if wrong else "passed",
        minutes=f"{taken.took_s / 60:.1f}",
        sessions=LARGE.sessions,
        processes=LARGE.processes,
        workers=LARGE.workers,
        judged=taken.judgement.judged,
        positions=taken.judgement.positions,
        asked=table_rows((kind, asked[kind]) for kind in QUERIES),
        refused=table_rows(sorted(seen.codes.items())) or "| none | 0 |",
        faults=table_rows((kind, injected[kind], bites[kind]) for kind in sorted(injected)),
        problems=table_rows((name, len(found)) for name, found in taken.problems.items()),
        wrong="\n".join(wrong),
    )


_PAGE: Final = """# Answers while things break

`make proof ARGS="-k fifty_thousand_answers"`, {day}, {cpus} cores: {verdict}. {minutes} minutes,
{sessions} sessions over {processes} API processes and {workers} workers, hostile traffic at a
steady pace. Each session names the position it saw last and asks any of the processes.

**{judged:,} answers at {positions:,} positions.** Each was compared, every field of it, with a fold
of the log up to the answer's own position, made by a program that shares no code with the product.

| question | answers |
|---|---|
{asked}

An *order* comes with its payments and its customer's totals; *all of an order* also with the total
and the day that it counts in, and their orders. The last four are pages by key.

| refused with | times |
|---|---|
{refused}

## Faults

A fault counts by evidence: a process gone, a partition taken over, a session ended.

| fault | injected | bites |
|---|---|---|
{faults}

## Anomalies

I4 an answer is not the log at its position, I5 a session went back, I6 of two positions neither
contains the other, I11 an error without a declared code, no answer, or something of the inside.

| invariant | found |
|---|---|
{problems}

{wrong}
"""
