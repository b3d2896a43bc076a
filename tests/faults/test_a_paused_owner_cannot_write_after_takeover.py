"""An owner that is frozen past its session and woken again: it writes nothing and rejoins."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final

import pytest

from tests.faults.harness.ground import Ground
from tests.faults.harness.workers import SESSION_TIMEOUT_S, WorkerProcess
from tests.fixtures.waiting import eventually

FROZEN: Final = 2.5 * SESSION_TIMEOUT_S
TAKEN_OVER: Final = "partition taken over from a paused owner"
GHOST_ENDED: Final = "frozen transaction ended by the taker-over"
ROUNDS: Final = 4
_TAKEOVER_S: Final = 60.0


def _take_over(ground: Ground, frozen: WorkerProcess, rest: WorkerProcess) -> int:
    """Freeze a worker and wait until the other owns everything it had; how many partitions."""
    theirs = ground.owned_by(frozen)
    assert theirs, "the worker to freeze owned nothing"
    frozen.freeze()
    threading.Event().wait(FROZEN)
    eventually(
        lambda: all(ground.owners()[partition] == rest.owner for partition in theirs),
        _TAKEOVER_S,
        "the partitions of the frozen worker have a new owner",
    )
    ground.bites.bit(TAKEN_OVER, len(theirs))
    return len(theirs)


def _freeze_in_a_transaction(ground: Ground, one: WorkerProcess, other: WorkerProcess) -> None:
    """One round in which the frozen worker holds its position rows when it stops."""
    held = ground.proxy.hold()
    assert held.caught.wait(_TAKEOVER_S), "no batch came to its commit"
    frozen, rest = (one, other) if held.application.endswith(one.owner) else (other, one)
    _take_over(ground, frozen, rest)
    assert held.server_gone.wait(_TAKEOVER_S), "the frozen transaction was not ended"
    ground.bites.bit(GHOST_ENDED)
    held.let_go.set()
    _wake(ground, frozen, rest)


def _freeze_between(ground: Ground, frozen: WorkerProcess, rest: WorkerProcess) -> None:
    _take_over(ground, frozen, rest)
    _wake(ground, frozen, rest)


def _wake(ground: Ground, frozen: WorkerProcess, rest: WorkerProcess) -> None:
    """Woken, it writes nothing by its old epochs, and rejoins; then both work again."""
    before = len(ground.links())
    old = _epochs_of(ground, frozen)
    frozen.thaw()
    ground.wait_for_share(frozen, rest)
    ground.wait_for_progress(50)
    assert len(ground.links()) > before
    assert _epochs_of(ground, frozen) == old, "it wrote by an epoch that was drawn before"


def _epochs_of(ground: Ground, worker: WorkerProcess) -> Counter[tuple[str, int, int]]:
    """How often a worker wrote by each epoch that is not the newest of its partition."""
    links = ground.links()
    newest = {(link.topic, link.partition): link.new_epoch for link in links}
    return Counter(
        (link.topic, link.partition, link.new_epoch)
        for link in links
        if link.moves
        and link.writer.endswith(worker.owner)
        and link.new_epoch < newest[link.topic, link.partition]
    )


@pytest.mark.parametrize("how", ["between transactions", "with an open transaction"])
def test_a_woken_owner_writes_nothing_and_rejoins(ground: Ground, how: str) -> None:
    trickle = ground.trickle(ground.traffic(4_000, seed=len(how)), per_s=150)
    one, other = ground.worker(), ground.worker()
    ground.wait_for_share(one, other)
    for turn in range(ROUNDS):
        frozen, rest = (one, other) if turn % 2 else (other, one)
        if how == "between transactions":
            _freeze_between(ground, frozen, rest)
        else:
            _freeze_in_a_transaction(ground, frozen, rest)
    trickle.stop()
    ground.must_be_right()
    _nobody_fences_in_turns(ground)


def _nobody_fences_in_turns(ground: Ground) -> None:
    """Epochs are drawn a few times a round, not over and over."""
    links = ground.links()
    drawn = sum(link.new_epoch != link.old_epoch for link in links)
    partitions = len({(link.topic, link.partition) for link in links})
    assert drawn <= partitions * (2 + 4 * ROUNDS), f"{drawn} epochs drawn"
