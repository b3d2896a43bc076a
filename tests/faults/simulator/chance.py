"""Decisions of a schedule: one small stream of numbers per move.

Each move brings its own seed, so that leaving a move out of a schedule does not change what the
others decide. That is what makes a failing schedule shrink.
"""

_MASK = (1 << 64) - 1


class Violation(AssertionError):  # noqa: N818 - what a schedule showed, not an error of the program
    """A promise of the product did not hold."""


class Chance:
    """A linear congruential generator: cheap, and the same on every machine."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = 0

    def begin(self, seed: int) -> None:
        """Start the decisions of one move."""
        self._state = seed

    def below(self, bound: int) -> int:
        """A number from 0 to `bound - 1`."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (self._state >> 33) % bound

    def one_in(self, many: int) -> bool:
        """True once in `many` times."""
        return self.below(many) == 0
