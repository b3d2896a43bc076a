"""How fast a build may go: as fast as it can, so many events a second, or yielding to live ingest.

The share is of a builder's own time: at 0.5 it rests as long as it has worked, at 0 until it is
given another one.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from views.positions import Partition

ALONE: Final = 1.0
BESIDE: Final = 0.45
BEHIND: Final = 0.15
RESTING: Final = 0.0
LOOK_S: Final = 0.5
"""How often somebody looks at live ingest; a rest is no longer than that without a new look."""
_LAG_EVENTS: Final = 2_000
_QUIET_S: Final = 5.0
Clock = Callable[[], float]
Look = Callable[[], float]
"""Tells the share for the time to come."""


class Pacer:
    """Rests between turns so that a builder keeps to its share and rate.

    The share is set by others, from any thread, or asked of `look` about twice a second.
    """

    def __init__(
        self,
        stop: threading.Event,
        *,
        rate: float | None = None,
        look: Look | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._stop = stop
        self._rate = rate
        self._look = look
        self._clock = clock
        self.share = ALONE
        self._turn_at = self._began_at = self._looked_at = clock()
        self._began_with: int | None = None

    def __call__(self, done: int) -> None:
        """After a turn: `done` offsets are in."""
        ended_at = self._clock()
        if self._began_with is None:
            self._began_with = done
        while not self._stop.is_set():
            now = self._clock()
            self._ask(now)
            rest_s = self._end_of_rest(ended_at, done - self._began_with) - now
            if rest_s <= 0:
                break
            self._stop.wait(min(rest_s, LOOK_S))
        self._turn_at = self._clock()

    def _end_of_rest(self, ended_at: float, gained: int) -> float:
        share = self.share  # once: another thread may set it meanwhile
        if share == RESTING:
            return math.inf
        end = ended_at + (ended_at - self._turn_at) * (1 / share - 1)
        return max(end, self._began_at + gained / self._rate) if self._rate else end

    def _ask(self, now: float) -> None:
        if self._look is not None and now - self._looked_at >= LOOK_S:
            self.share = self._look()
            self._looked_at = self._clock()


class Yielding:
    """Sees from the live positions how much a build may take beside live ingest."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Partition, int] = {}
        self._moved_at: float | None = None

    def share(self, positions: Mapping[Partition, int], lag_events: int) -> float:
        """The share for the next second. `lag_events`: how far live ingest is behind its ends."""
        now = self._clock()
        if self._seen and dict(positions) != self._seen:
            self._moved_at = now
        self._seen = dict(positions)
        if self._moved_at is None or now - self._moved_at >= _QUIET_S:
            return ALONE
        return BEHIND if lag_events > _LAG_EVENTS else BESIDE
