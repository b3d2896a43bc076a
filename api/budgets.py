"""How much a caller may ask for in a time: a token bucket for each, filled with cost.

The cost is the static one of `limits.py`, so it is known before anything runs. A bucket may be
overdrawn by one operation: a large one is as welcome as many small ones, and the average holds all
the same. Stands apart from the limits of a single operation, which know no caller and no time.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from api.errors import RateLimitedError

LEAST_COST: Final = 100
"""Of any operation: to read a request takes about as long as that many fields."""
REFUSED_COST: Final = 1_000
"""Of an operation that cannot be run: to find that out may take long."""
_REMEMBERED: Final = 10_000


class Budgets:
    """The buckets of a process. `cost_per_s` 0: nobody is counted. `burst`: what a bucket holds."""

    def __init__(
        self, *, cost_per_s: float, burst: float, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._cost_per_s = cost_per_s
        self._burst = burst
        self._now_s = now_s
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()

    @property
    def counted(self) -> bool:
        """Whether there is a limit at all."""
        return self._cost_per_s > 0

    def require(self, payer: str | None) -> None:
        """Return if one may ask for something. RateLimitedError: not before a while."""
        wait_s = self.wait_s(payer)
        if wait_s > 0:
            raise RateLimitedError(
                "You have asked for more than your share. Ask again later.",
                retryAfterMs=math.ceil(wait_s * 1000),
            )

    def take(self, payer: str | None, cost: int) -> None:
        """Count what one asks for; None asks for nothing of its own."""
        if payer is None or not self.counted:
            return
        left = self._left(payer) - max(cost, LEAST_COST)
        self._known[payer] = left, self._now_s()
        self._known.move_to_end(payer)
        while len(self._known) > _REMEMBERED:
            # Who has not asked for longest is most likely to have a full bucket: as good as none.
            self._known.popitem(last=False)

    def wait_s(self, payer: str | None) -> float:
        """How long until one may ask for something; 0: now."""
        if payer is None or not self.counted:
            return 0.0
        return max(-self._left(payer) / self._cost_per_s, 0.0)

    def richest(self, payers: Iterable[str]) -> str | None:
        """Of all these, who has most left."""
        return max(payers, key=self._left, default=None)

    def _left(self, payer: str) -> float:
        known = self._known.get(payer)
        if known is None:
            return self._burst
        left, at_s = known
        return min(left + (self._now_s() - at_s) * self._cost_per_s, self._burst)


UNCOUNTED: Final = Budgets(cost_per_s=0, burst=0)
