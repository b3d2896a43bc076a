"""Schedules from seeds, and the smallest part of a failing one."""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from tests.faults.simulator.chance import Violation
from tests.faults.simulator.database import Database
from tests.faults.simulator.world import MOVES, Move, Schedule, World, quiet

MOVES_PER_SCHEDULE = 40
_WEIGHTS: Final = {
    "step": 200,
    "advance": 80,
    "produce": 40,
    "watch": 24,
    "rebalance": 14,
    "expel": 10,
    "freeze": 12,
    "wake": 14,
    "kill": 7,
    "spawn": 10,
    "log outage": 6,
    "database outage": 8,
    "registry outage": 8,
    "ghost": 12,
    "pause": 8,
    "must stop": 5,
    "tick": 16,
    "burst": 2,
    "fail over": 6,
    "swap": 4,
    "trim": 2,
}
_KINDS: Final = list(MOVES)
_SUMS: Final = list(accumulate(_WEIGHTS[kind] for kind in _KINDS))


@dataclass(frozen=True, slots=True)
class Finding:
    """A schedule that broke a promise, cut down, and what happened in it."""

    seed: int
    schedule: Schedule
    error: str
    story: tuple[str, ...]

    def __str__(self) -> str:
        moves = "\n".join(f"  {line}" for line in self.story)
        return f"seed {self.seed}: {self.error}\n{moves}\n{self.schedule}"


def schedule(seed: int) -> Schedule:
    """The schedule of a seed."""
    lots = random.Random(seed)
    kinds = lots.choices(_KINDS, cum_weights=_SUMS, k=MOVES_PER_SCHEDULE)
    return Schedule(lots.getrandbits(62), tuple((kind, lots.getrandbits(62)) for kind in kinds))


def search(
    seeds: Iterable[int], *, database: type[Database] = Database
) -> tuple[Finding | None, Counter[str]]:
    """Play the schedules of the seeds up to the first that breaks a promise; and what was met."""
    met: Counter[str] = Counter()
    with quiet():
        for seed in seeds:
            played = schedule(seed)
            try:
                for what, count in World(played, database=database).play().items():
                    met[what] += count
                met["schedules"] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, the schedule shows it
                return _finding(seed, played, error, database), met
    return None, met


def _finding(seed: int, played: Schedule, error: Exception, database: type[Database]) -> Finding:
    smallest = _shrunk(played, type(error), database)
    world = World(smallest, database=database)
    story: list[str] = []
    world.story = story
    shown: Exception = error
    with quiet(story):
        try:
            world.play()
        except Exception as again:  # noqa: BLE001 - the same one, told of the smaller schedule
            shown = again
    return Finding(seed, smallest, f"{type(shown).__name__}: {shown}", tuple(story))


def _shrunk(failing: Schedule, kind: type[Exception], database: type[Database]) -> Schedule:
    """Leave out ever smaller runs of moves while it still fails in the same way."""
    moves: list[Move] = list(failing.moves)
    run, length = len(moves) // 2, len(moves)
    while run:
        start = 0
        while start < len(moves):
            fewer = Schedule(failing.setup, tuple(moves[:start] + moves[start + run :]))
            if _fails(fewer, kind, database):
                moves = list(fewer.moves)
            else:
                start += 1
        if run == 1 and len(moves) < length:
            run, length = 2, len(moves)
        else:
            run //= 2
    return Schedule(failing.setup, tuple(moves))


def _fails(played: Schedule, kind: type[Exception], database: type[Database]) -> bool:
    try:
        World(played, database=database).play()
    except kind:
        return True
    except Exception:  # noqa: BLE001 - another failure is another finding
        return False
    return False


__all__ = ["Finding", "Violation", "schedule", "search"]
