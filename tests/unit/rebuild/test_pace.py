"""A builder keeps to its share of the time and to its rate, and live ingest goes first."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from ingest.connect import Target
from ingest.settings import IngestSettings
from rebuild import bulk
from rebuild.builder import StoppedError
from rebuild.bulk import Load
from rebuild.pace import ALONE, BEHIND, BESIDE, Pacer, Yielding
from views.positions import Partition

HERE: Partition = ("orders", 0)


class Clock(threading.Event):
    """A clock that stands still unless somebody works, or waits for this event."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.rested = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        """What time it is."""
        return self.now

    def work(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def wait(self, timeout: float | None = None) -> bool:
        """Rest."""
        assert timeout is not None
        self.now += timeout
        self.rested += timeout
        self.waits.append(timeout)
        return self.is_set()


@pytest.mark.parametrize("share", [BESIDE, BEHIND, 0.01])
def test_a_builder_works_no_more_than_its_share_however_long_a_turn(share: float) -> None:
    clock = Clock()
    pacer = Pacer(clock, clock=clock)
    pacer.share = share
    for turn in (0.1, 3.0, 20.0):
        clock.work(turn)
        pacer(0)
    assert 23.1 / (23.1 + clock.rested) == pytest.approx(share)
    assert max(clock.waits) <= 0.5  # it hears of a new share, and of the end


def test_alone_it_never_rests() -> None:
    clock = Clock()
    pacer = Pacer(clock, clock=clock)
    clock.work(5.0)
    pacer(100_000)
    assert clock.waits == []


def test_a_new_share_ends_a_long_rest() -> None:
    clock = Clock()
    shares = iter([BEHIND, BEHIND, ALONE])
    pacer = Pacer(clock, look=lambda: next(shares), clock=clock)
    clock.work(10.0)
    pacer(0)
    assert clock.rested == pytest.approx(1.0)


def test_whoever_stops_it_does_not_wait_for_the_rest() -> None:
    clock = Clock()
    pacer = Pacer(clock, clock=clock)
    pacer.share = BEHIND
    clock.set()
    clock.work(10.0)
    pacer(0)
    assert clock.waits == []


def test_a_rate_holds_over_all_turns() -> None:
    clock = Clock()
    pacer = Pacer(clock, rate=100, clock=clock)
    began = clock.now
    for done in range(0, 1_001, 50):
        clock.work(0.01)
        pacer(done)
    assert clock.now - began == pytest.approx(10.0)


def test_it_yields_while_live_ingest_moves_and_more_where_that_lags() -> None:
    clock = Clock()
    yielding = Yielding(clock)
    assert yielding.share({HERE: 1}, 9_999) == ALONE  # nobody moves: no worker runs
    assert yielding.share({HERE: 2}, 10) == BESIDE
    assert yielding.share({HERE: 3}, 9_999) == BEHIND
    clock.work(4.9)
    assert yielding.share({HERE: 3}, 10) == BESIDE
    clock.work(0.2)
    assert yielding.share({HERE: 3}, 0) == ALONE


@dataclass(slots=True)
class Niceness:
    """A builder that notes how nice its thread is."""

    stop: threading.Event
    seen: list[int] = field(default_factory=list)

    def go_to(self, *_args: object, **_options: object) -> None:
        """Fill it."""
        self.seen.append(os.getpriority(os.PRIO_PROCESS, 0))


LOAD = Load(target=Target(build="build_2", keeps_dead=True), partitions=(), until={}, letters={})


@pytest.fixture
def builders(monkeypatch: pytest.MonkeyPatch) -> list[Niceness]:
    """The builders that were made."""
    made: list[Niceness] = []

    @contextmanager
    def build(_settings: object, _load: object, stop: threading.Event) -> Iterator[Niceness]:
        made.append(Niceness(stop))
        yield made[-1]

    monkeypatch.setattr(bulk, "_builder", build)
    monkeypatch.setattr(bulk, "tune_interpreter", lambda: None)
    return made


def fill(look: Any, stop: threading.Event) -> None:
    bulk.fill(cast(IngestSettings, None), LOAD, processes=1, look=look, stop=stop)


def test_a_load_in_this_process_is_nice_and_the_process_is_not(builders: list[Niceness]) -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    fill(lambda: ALONE, threading.Event())
    assert builders[0].seen[0] > mine
    assert os.getpriority(os.PRIO_PROCESS, 0) == mine


@pytest.mark.usefixtures("builders")
def test_whoever_can_look_no_longer_ends_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Niceness, "go_to", lambda self, *_a, **_o: self.stop.wait())
    monkeypatch.setattr(bulk, "LOOK_S", 0.01)

    def away() -> float:
        raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError):
        fill(away, threading.Event())


@pytest.mark.usefixtures("builders")
def test_a_load_that_is_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def until_stopped(self: Niceness, *_args: object, **_options: object) -> None:
        assert self.stop.wait(60)
        raise StoppedError

    monkeypatch.setattr(Niceness, "go_to", until_stopped)
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        fill(lambda: ALONE, stop)
