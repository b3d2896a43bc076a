"""An owner that is frozen past its session and woken again: it writes nothing, is told, rejoins."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

import pytest

from ingest.failpoints import AFTER_BEGIN, AFTER_UPSERT
from tests.faults.harness import chain
from tests.faults.harness.ground import Ground
from tests.faults.harness.workers import SESSION_TIMEOUT_S, WorkerProcess
from tests.fixtures.waiting import PATIENCE_S, eventually, let_last

FROZEN: Final = 2.5 * SESSION_TIMEOUT_S
TAKEN_OVER: Final = "partition taken over from a paused owner"
GHOST_ENDED: Final = "frozen transaction ended by the taker-over"
TOLD: Final = "woken owner told that it was replaced"
FROZEN_AT: Final = "worker frozen at {}"
ROUNDS: Final = 4
LEAST: Final = 10
"""Takeovers of a test, of which there are two: twenty in all."""
_LETS_GO: Final = re.compile(r"event=(?:fenced|lost|\"no longer a member\"|revoked)")


def _take_over(ground: Ground, frozen: WorkerProcess, rest: WorkerProcess) -> int:
    """Freeze a worker and wait until the other owns everything it had; how many partitions."""
    theirs = ground.owned_by(frozen)
    assert theirs, "the worker to freeze owned nothing"
    frozen.freeze()
    let_last(FROZEN)
    _taken_over(ground, theirs, rest)
    return len(theirs)


def _taken_over(ground: Ground, theirs: Iterable[tuple[str, int]], rest: WorkerProcess) -> None:
    eventually(
        lambda: all(ground.owners()[partition] == rest.owner for partition in theirs),
        PATIENCE_S,
        "the partitions of the frozen worker have a new owner",
    )
    ground.bites.bit(TAKEN_OVER, len(set(theirs)))


def _freeze_in_a_transaction(ground: Ground, one: WorkerProcess, other: WorkerProcess) -> int:
    """One round in which the frozen worker holds its position rows when it stops."""
    held = ground.proxy.hold()
    assert held.caught.wait(PATIENCE_S), "no batch came to its commit"
    frozen, rest = (one, other) if held.application.endswith(one.owner) else (other, one)
    taken = _take_over(ground, frozen, rest)
    assert held.server_gone.wait(PATIENCE_S), "the frozen transaction was not ended"
    ground.bites.bit(GHOST_ENDED)
    held.let_go.set()
    _wake(ground, frozen, rest)
    return taken


def _freeze_between(ground: Ground, frozen: WorkerProcess, rest: WorkerProcess) -> int:
    taken = _take_over(ground, frozen, rest)
    _wake(ground, frozen, rest)
    return taken


def _wake(ground: Ground, frozen: WorkerProcess, rest: WorkerProcess) -> None:
    """Woken, it writes nothing by its old epochs, is told to let go of what it had, by the fence
    or by the group, and rejoins; then both work again."""
    written = _written(ground.links(), frozen)
    told = _told(frozen)
    frozen.thaw()
    ground.wait_for_share(frozen, rest)
    ground.wait_for_progress(50)
    after = _written(ground.links(), frozen)
    assert {epoch: after[epoch] for epoch in written} == written, "it wrote by an epoch of before"
    ground.bites.bit(TOLD, _told(frozen) - told)
    assert _told(frozen) > told, "it was never told that it was replaced"


def _written(links: Iterable[chain.Link], worker: WorkerProcess) -> Counter[tuple[str, int, int]]:
    """How often a worker wrote by each epoch that it ever drew."""
    drawn = Counter[tuple[str, int, int]]()
    for link in links:
        if link.owner == worker.owner:
            moved = link.moves and link.writer.endswith(worker.owner)
            drawn[link.topic, link.partition, link.new_epoch] += moved
    return drawn


def _told(worker: WorkerProcess) -> int:
    return len(_LETS_GO.findall(worker.log))


@pytest.mark.parametrize("how", ["between transactions", "with an open transaction"])
def test_a_woken_owner_writes_nothing_and_rejoins(ground: Ground, how: str) -> None:
    trickle = ground.trickle(ground.traffic(50_000, seed=len(how)), per_s=150)
    one, other = ground.worker(), ground.worker()
    ground.wait_for_share(one, other)
    taken = 0
    for turn in range(ROUNDS):
        frozen, rest = (one, other) if turn % 2 else (other, one)
        if how == "between transactions":
            taken += _freeze_between(ground, frozen, rest)
        else:
            taken += _freeze_in_a_transaction(ground, frozen, rest)
    assert taken >= LEAST
    trickle.stop()
    ground.must_be_right()
    _nobody_fences_in_turns(ground)


def _nobody_fences_in_turns(ground: Ground) -> None:
    """Epochs are drawn a few times a round, not over and over."""
    links = ground.links()
    drawn = sum(link.draws for link in links)
    partitions = len({(link.topic, link.partition) for link in links})
    assert drawn <= partitions * (2 + 4 * ROUNDS), f"{drawn} epochs drawn"


@pytest.mark.parametrize("point", [AFTER_BEGIN, AFTER_UPSERT])
def test_an_owner_frozen_in_mid_copy_or_before_its_results_holds_up_nobody(
    ground: Ground, point: str
) -> None:
    """In COPY it holds no row yet; with statements sent and no answer read it holds them all."""
    trickle = ground.trickle(ground.traffic(50_000, seed=len(point)), per_s=150)
    frozen = ground.doomed(f"{point}:stop:3")
    eventually(lambda: ground.met(frozen) and frozen.frozen, PATIENCE_S, "it has stopped itself")
    theirs = ground.owned_by(frozen)
    assert theirs, "it stopped before it owned anything"
    ground.bites.bit(FROZEN_AT.format(point))
    rest = ground.worker()
    _taken_over(ground, theirs, rest)
    ground.wait_for_progress(50)
    _wake(ground, frozen, rest)
    trickle.stop()
    ground.must_be_right()
