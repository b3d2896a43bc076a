"""Three workers while others come and go: by SIGTERM, by kill -9, back to back, under load."""

from __future__ import annotations

from typing import Final

from tests.faults.harness import chain
from tests.faults.harness.ground import Ground
from tests.faults.harness.workers import WorkerProcess

ROUNDS: Final = 2
SHARED_S: Final = 120.0
CAME: Final = "partition taken over by a worker that came"
LEFT: Final = "partition taken over from a worker that left"
KILLED: Final = "partition taken over from a killed worker"


def _takeovers(ground: Ground, workers: list[WorkerProcess]) -> int:
    links = ground.links()
    return sum(chain.takeovers(links, by=worker.owner) for worker in workers)


def _share(ground: Ground, workers: list[WorkerProcess], kind: str, before: int) -> None:
    """Wait until they share everything; what changed hands on the way has bitten."""
    ground.wait_for_share(*workers, timeout_s=SHARED_S)
    ground.bites.bit(kind, _takeovers(ground, workers) - before)
    assert ground.bites.of(kind) > 0


def test_workers_may_come_go_and_be_killed_while_events_come(ground: Ground) -> None:
    trickle = ground.trickle(ground.traffic(50_000, seed=21), per_s=150)
    workers = [ground.worker() for _ in range(3)]
    ground.wait_for_share(*workers, timeout_s=SHARED_S)
    for _ in range(ROUNDS):
        workers.append(ground.worker())
        _share(ground, workers, CAME, _takeovers(ground, workers[:-1]))
        gone = workers.pop(0)
        before = _takeovers(ground, workers)
        assert gone.stop() == 0, gone.log
        _share(ground, workers, LEFT, before)
        killed = workers.pop(0)
        before = _takeovers(ground, workers)
        killed.kill()
        _share(ground, workers, KILLED, before)
        workers.append(ground.worker())
        _share(ground, workers, CAME, _takeovers(ground, workers[:-1]))
    ground.wait_for_progress(50)
    trickle.stop()
    ground.must_be_right()
