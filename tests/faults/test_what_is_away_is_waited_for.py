"""Broker, registry, database away, at start and in the middle: the worker says so, waits, spends no
retry, dead-letters nothing on their account, and goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground
from tests.faults.harness.workers import WorkerProcess
from tests.fixtures.waiting import PATIENCE_S, eventually, let_last

AWAY: Final = "{} away {}"
SAID: Final = {"broker": "broker", "registry": "can't be fetched", "database": "database: "}
"""What the sentence for the operator holds; in `/readyz` and in the log."""
IN_THE_LOG: Final = {name: (said,) for name, said in SAID.items()} | {
    "broker": ("the broker does not tell", "kafka client reports a problem")
}
"""At start the worker asks the broker and is told nothing; later its client reports."""
_CAUGHT_UP_S: Final = 30.0
_FLAT_KB: Final = 48_000
_TRIES: Final = 3  # of a suspect, as docs/architecture.md has it; an outage adds none


@contextmanager
def _away(field: Field, ground: Ground, server: str) -> Iterator[None]:
    """A server that does not answer while inside."""
    match server:
        case "database":
            field.stack.postgres.stop("immediate")
        case "broker":
            field.stack.kafka.kill()
        case _:
            ground.registry.spoil("cut", 1_000_000)
    try:
        yield
    finally:
        match server:
            case "database":
                field.stack.postgres.start()
            case "broker":
                field.stack.kafka.start()
            case _:
                ground.registry.heal()


def _says_so(worker: WorkerProcess, server: str, *, from_line: int) -> None:
    """In its log and on `/readyz`; and it goes on living."""

    def said() -> bool:
        on_page = any(SAID[server] in problem for problem in worker.problems())
        in_log = _log_from(worker, from_line)
        return on_page and any(words in in_log for words in IN_THE_LOG[server])

    eventually(said, PATIENCE_S, f"the worker says that the {server} is away")
    assert worker.process.running


def _log_from(worker: WorkerProcess, line: int) -> str:
    return "\n".join(worker.log.splitlines()[line:]).lower()


def _spent_nothing(ground: Ground) -> None:
    """No record was tried more often than its own fault asks for, and the rest is right; every dead
    letter has left for its topic."""
    assert ground.ask("SELECT count(*) > 0, max(attempts) FROM ingest.dead_letters") == [
        (True, _TRIES)
    ]
    ground.must_be_right()
    unsent = "SELECT count(*) FROM ingest.outbox WHERE sent_at IS NULL"
    eventually(lambda: ground.ask(unsent) == [(0,)], PATIENCE_S, "every dead letter was sent")


@pytest.mark.parametrize("server", ["broker", "registry", "database"])
def test_what_is_away_at_start_and_in_the_middle_is_waited_for(
    field: Field, ground: Ground, server: str
) -> None:
    ground.send(ground.traffic(60, seed=31, evolved=0.0, poison=0.05))
    with _away(field, ground, server):
        worker = ground.worker()
        _says_so(worker, server, from_line=0)
    ground.wait_until_in()
    ground.wait_ready(worker)
    ground.bites.bit(AWAY.format(server, "at start"))

    trickle = ground.trickle(ground.traffic(50_000, seed=32, prefix="later", evolved=0.0))
    ground.wait_for_progress(50)
    line = len(worker.log.splitlines())
    with _away(field, ground, server):
        if server == "registry":  # it is asked for schemas that are new
            ground.send(ground.traffic(20, seed=33, prefix="evolved", evolved=1.0))
        _says_so(worker, server, from_line=line)
    ground.wait_for_progress(50)
    ground.wait_ready(worker)
    ground.bites.bit(AWAY.format(server, "in the middle"))
    trickle.stop()
    _spent_nothing(ground)


@pytest.mark.proof
@pytest.mark.timeout(900)
@pytest.mark.parametrize("server", ["broker", "registry", "database"])
def test_a_minute_away_under_load_costs_no_memory_and_is_caught_up_with(
    field: Field, ground: Ground, server: str, record_property: Callable[[str, object], None]
) -> None:
    worker = ground.worker(BATCH_ROWS="20000")
    trickle = ground.trickle(ground.traffic(500_000, seed=34, evolved=0.0, poison=0.005), per_s=300)
    ground.wait_for_progress(6_000, timeout_s=120)
    before, line = worker.use(), len(worker.log.splitlines())
    with _away(field, ground, server):
        if server == "registry":
            ground.send(ground.traffic(20, seed=35, prefix="evolved", evolved=1.0))
        _says_so(worker, server, from_line=line)
        let_last(60)
        assert worker.process.running
    returned_at = time.monotonic()
    during = worker.use()
    ground.wait_until_in(_CAUGHT_UP_S)
    caught_up_s = time.monotonic() - returned_at
    ground.bites.bit(AWAY.format(server, "for a minute"))
    trickle.stop()
    _spent_nothing(ground)
    after = worker.use()
    record_property(
        "said",
        f"{server}: {before.resident_kb // 1024} MB before, {during.resident_kb // 1024} MB after"
        f" a minute, {after.resident_kb // 1024} MB at the end; caught up {caught_up_s:.1f} s"
        f" after its return; {sum(ground.positions().values())} events",
    )
    assert during.resident_kb - before.resident_kb < _FLAT_KB
    assert after.resident_kb - before.resident_kb < 2 * _FLAT_KB
