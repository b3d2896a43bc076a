"""All of one topic before any of the other, in either order, or both as they come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.faults.harness.bites import Bites
from tests.faults.harness.commands import command
from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground
from tests.faults.harness.workers import WorkerProcess
from tests.faults.oracle import high_watermarks
from tests.faults.oracle.compare import hold
from tests.fixtures.waiting import PATIENCE_S, eventually
from views import CATALOGUE

PARTITIONS: Final = 6
TOPICS: Final = ("orders", "payments")
ALL_OF_ONE: Final = "all of a topic applied before any of the other"


@pytest.fixture
def grounds(field: Field, tmp_path: Path, bites: Bites) -> Iterator[list[Ground]]:
    """One log, and a database for each way to read it."""
    with ExitStack() as at_end:
        first = at_end.enter_context(field.ground(tmp_path / "0", bites))
        others = [field.another_database(tmp_path / f"{n}", bites) for n in (1, 2)]
        yield [first, *(at_end.enter_context(other) for other in others)]


def _held_back(ground: Ground, topic: str) -> WorkerProcess:
    """A worker that has been there, and will find this topic paused when it comes again."""
    worker = ground.worker()
    eventually(
        lambda: len(ground.owned_by(worker)) == PARTITIONS, PATIENCE_S, "every partition has a row"
    )
    assert worker.stop() == 0
    command(ground, "pause", topic)
    return worker


def _read_last(ground: Ground, worker: WorkerProcess, topic: str) -> None:
    """Read the other topic to its end while this one is held back; then this one."""
    ends = high_watermarks(ground.place.bootstrap, CATALOGUE.topics)
    worker.start()
    others = {place: end for place, end in ends.items() if place[0] != topic}
    eventually(lambda: others.items() <= ground.positions().items(), PATIENCE_S, "they are in")
    stands = sum(offset for (name, _), offset in ground.positions().items() if name == topic)
    assert stands == 0, "both topics were read"
    ground.bites.bit(ALL_OF_ONE)
    command(ground, "resume", topic)
    ground.wait_until_in()


def test_any_interleaving_of_the_topics_gives_the_same_rows(grounds: list[Ground]) -> None:
    as_they_come, *others = grounds
    one_last = [(g, _held_back(g, topic), topic) for g, topic in zip(others, TOPICS, strict=True)]
    as_they_come.send(as_they_come.traffic(150, seed=85))
    as_they_come.worker()
    for ground, worker, topic in one_last:
        _read_last(ground, worker, topic)
    as_they_come.must_be_right()
    first, *rest = (hold(ground.place.dsn, "build_1") for ground in grounds)
    for other in rest:
        assert other.rows == first.rows
        assert other.positions == first.positions
        assert sorted(other.dead_letters) == sorted(first.dead_letters)
