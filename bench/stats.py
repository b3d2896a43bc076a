"""The arithmetic of a benchmark: medians with their range, ratios per round, percentiles.

Stands apart because it is pure. A ratio is taken within each round, between neighbours in time, and
only then summed up: what slows the machine for a while slows both sides of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds and how far they lie apart."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """`median (low to high)`, with thousands set off."""
        middle, low, high = (f"{v:,.{digits}f}" for v in (self.median, self.low, self.high))
        return f"{middle} ({low} to {high})"


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value."""
    if not values:
        raise ValueError("no round was measured")
    return Spread(median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours ÷ theirs, round by round. Both sides must have run in every round."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds beside {len(theirs)}")
    return spread([mine / other for mine, other in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed."""
    if not values:
        raise ValueError("nothing was measured")
    if not 0 < share <= 1:
        raise ValueError(f"{share} is not a share above 0 and up to 1")
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]
