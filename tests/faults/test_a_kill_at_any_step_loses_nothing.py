"""kill -9 at every named step of the worker, and a failure at each: nothing lost, nothing twice."""

from __future__ import annotations

import signal
from typing import Final

from ingest.failpoints import IN_ASSIGN, IN_OUTBOX, IN_REVOKE, POINTS
from tests.faults.harness.ground import Ground
from tests.faults.harness.workers import WorkerProcess
from tests.faults.oracle import high_watermarks
from tests.fixtures.waiting import PATIENCE_S, eventually
from views import CATALOGUE

_DIES_S: Final = PATIENCE_S
KILLED: Final = "worker killed at {}"
FAILED: Final = "step failed at {}"
_IN_A_BATCH: Final = [p for p in POINTS if p not in (IN_ASSIGN, IN_REVOKE, IN_OUTBOX)]


def _dies(ground: Ground, worker: WorkerProcess, point: str) -> None:
    """Wait for its end, and see that it came at that point, with more of the log to come."""
    assert worker.process.wait(_DIES_S) == -signal.SIGKILL, worker.log
    met = ground.met(worker)
    assert [fault.split(":")[0] for fault in met] == [point]
    ends = high_watermarks(ground.place.bootstrap, CATALOGUE.topics)
    assert sum(ends.values()) > sum(ground.positions().values()), "nothing was left to be read"
    ground.bites.bit(KILLED.format(point))


def test_a_worker_killed_at_every_step_in_turn_loses_and_doubles_nothing(ground: Ground) -> None:
    """Each is started again under the same name, as whoever keeps processes alive would do it."""
    trickle = ground.trickle(ground.traffic(50_000, seed=11), per_s=150)
    for point in (IN_ASSIGN, *_IN_A_BATCH):
        passing = 1 if point == IN_ASSIGN else 3
        doomed = ground.doomed(f"{point}:kill:{passing}", GROUP_INSTANCE_ID="one")
        _dies(ground, doomed, point)
    doomed = ground.doomed(f"{IN_REVOKE}:kill:1", GROUP_INSTANCE_ID="one")
    eventually(lambda: len(ground.owned_by(doomed)) > 1, _DIES_S, "the last of them owns all")
    ground.worker()  # a second member: the first has to hand over a part
    _dies(ground, doomed, IN_REVOKE)
    trickle.stop()
    ground.must_be_right()


def test_a_failure_at_any_step_is_waited_out(ground: Ground) -> None:
    trickle = ground.trickle(ground.traffic(50_000, seed=12), per_s=150)
    asked = [f"{point}:fail:{2 * n}" for point in (*_IN_A_BATCH, IN_ASSIGN) for n in (1, 2, 3)]
    worker = ground.doomed(",".join(asked))
    eventually(
        lambda: len(ground.met(worker)) == len(asked), _DIES_S, "every step failed three times"
    )
    assert sorted(ground.met(worker)) == sorted(asked)
    for fault in asked:
        ground.bites.bit(FAILED.format(fault.split(":")[0]))
    assert worker.process.running
    trickle.stop()
    ground.must_be_right()
