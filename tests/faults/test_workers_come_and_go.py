"""Three workers while others come and go: by SIGTERM, by kill -9, back to back, under load."""

from __future__ import annotations

import signal
from typing import Final

from tests.faults.harness import chain
from tests.faults.harness.ground import Ground
from tests.faults.harness.workers import WorkerProcess
from tests.fixtures.waiting import PATIENCE_S, eventually, let_last

ROUNDS: Final = 2
CAME: Final = "partition taken over by a worker that came"
LEFT: Final = "partition taken over from a worker that left"
KILLED: Final = "partition taken over from a killed worker"
ALL_KILLED: Final = "worker killed together with all others"
STORM: Final = "rebalance in the middle of another"
SLOW: Final = "batch that took longer than the poll interval"
STORMS: Final = 6
_POLL_INTERVAL_S: Final = 2.5


def _takeovers(ground: Ground, workers: list[WorkerProcess]) -> int:
    links = ground.links()
    return sum(chain.takeovers(links, by=worker.owner) for worker in workers)


def _share(ground: Ground, workers: list[WorkerProcess], kind: str, before: int) -> None:
    """Wait until they share everything; what changed hands on the way has bitten."""
    ground.wait_for_share(*workers)
    taken = _takeovers(ground, workers) - before
    assert taken > 0, "nothing changed hands"
    ground.bites.bit(kind, taken)


def test_workers_may_come_go_and_be_killed_while_events_come(ground: Ground) -> None:
    trickle = ground.trickle(ground.traffic(50_000, seed=21), per_s=150)
    workers = [ground.worker() for _ in range(3)]
    ground.wait_for_share(*workers)
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


def test_all_workers_may_be_killed_at_once(ground: Ground) -> None:
    trickle = ground.trickle(ground.traffic(50_000, seed=22), per_s=150)
    workers = [ground.worker() for _ in range(3)]
    ground.wait_for_share(*workers)
    for worker in workers:
        worker.process.send(signal.SIGKILL)
    ground.bites.bit(ALL_KILLED, sum(w.process.wait(PATIENCE_S) < 0 for w in workers))
    for worker in workers:
        worker.launch()
    ground.wait_for_share(*workers)
    ground.wait_for_progress(50)
    trickle.stop()
    ground.must_be_right()


def test_a_storm_of_rebalances_leaves_the_workers_at_work(ground: Ground) -> None:
    """Each newcomer goes as soon as it is a member, by turns killed and asked, when the next is
    on its way."""
    trickle = ground.trickle(ground.traffic(50_000, seed=23), per_s=150)
    steady = ground.worker()
    ground.wait_for_progress(50)
    coming = _newcomer(ground)
    turn = 0
    while steady.log.count("event=assigned") < STORMS:  # one may take several comers and goers
        leaving, coming = coming, _newcomer(ground)
        eventually(lambda: "event=assigned" in leaving.log, PATIENCE_S, "it is a member")  # noqa: B023
        (leaving.kill if turn % 2 else leaving.process.request_stop)()
        turn += 1
    coming.kill()
    ground.bites.bit(STORM, STORMS - 1)  # the first came with itself
    ground.wait_for_progress(50)
    trickle.stop()
    ground.must_be_right()


def _newcomer(ground: Ground) -> WorkerProcess:
    return ground.doomed("")  # with no fault; it is not waited for


def test_a_batch_that_takes_longer_than_the_poll_interval_costs_no_partition(
    ground: Ground,
) -> None:
    trickle = ground.trickle(ground.traffic(50_000, seed=24), per_s=150)
    interval_ms = str(int(_POLL_INTERVAL_S * 1000))
    workers = [ground.worker(KAFKA_MAX_POLL_INTERVAL_MS=interval_ms) for _ in range(2)]
    ground.wait_for_share(*workers)
    owners = ground.owners()
    held = ground.proxy.hold()
    assert held.caught.wait(PATIENCE_S), "no batch came to its commit"
    let_last(2 * _POLL_INTERVAL_S)
    ground.bites.bit(SLOW)
    held.let_go.set()
    ground.wait_for_progress(50)
    assert ground.owners() == owners, "a partition changed hands"
    trickle.stop()
    ground.must_be_right()
