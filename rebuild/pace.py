"""How fast a build may go: as fast as it can, so many events a second, or yielding to live ingest.

The share is of a builder's own time: at 0.5 it rests as long as it has worked.
"""

import threading
import time
from collections.abc import Mapping
from typing import Final

from views.positions import Partition

ALONE: Final = 1.0
BESIDE: Final = 0.6
BEHIND: Final = 0.15
_MOST_REST_S: Final = 1.0
_LAG_EVENTS: Final = 2_000
_QUIET_S: Final = 5.0


class Pacer:
    """Rests between turns so that a builder keeps to its share and rate."""

    def __init__(self, stop: threading.Event, *, rate: float | None = None) -> None:
        self._stop = stop
        self._rate = rate
        self.share = ALONE
        self._turn_at = self._began_at = time.monotonic()
        self._began_with: int | None = None

    def __call__(self, done: int) -> None:
        """After a turn: `done` offsets are in."""
        now = time.monotonic()
        rest_s = (now - self._turn_at) * (1 / self.share - 1)
        if self._began_with is None:
            self._began_with = done
        if self._rate:
            ahead = (done - self._began_with) / self._rate - (now - self._began_at)
            rest_s = max(rest_s, ahead)
        if rest_s > 0:
            self._stop.wait(min(rest_s, _MOST_REST_S))
        self._turn_at = time.monotonic()


class Yielding:
    """Sees from the live positions how much a build may take beside live ingest."""

    def __init__(self) -> None:
        self._seen: dict[Partition, int] = {}
        self._moved_at = -_QUIET_S

    def share(self, positions: Mapping[Partition, int], lag_events: int) -> float:
        """The share for the next second. `lag_events`: how far live ingest is behind its ends."""
        now = time.monotonic()
        if self._seen and dict(positions) != self._seen:
            self._moved_at = now
        self._seen = dict(positions)
        if now - self._moved_at >= _QUIET_S:
            return ALONE
        return BEHIND if lag_events > _LAG_EVENTS else BESIDE
