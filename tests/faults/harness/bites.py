"""Counts the faults that really happened. A fault that did not bite proves nothing.

Stands apart because tests, the report at the end of a run and the soak count by the same rule: a
kind is counted where its evidence is seen, never where it is asked for.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Bites:
    """Bites by kind."""

    _by_kind: Counter[str] = field(default_factory=Counter)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def bit(self, kind: str, times: int = 1) -> None:
        """A fault of this kind was seen to happen."""
        if times <= 0:
            return
        with self._changed:
            self._by_kind[kind] += times
            self._changed.notify_all()

    def of(self, kind: str) -> int:
        """How often this kind bit."""
        with self._changed:
            return self._by_kind[kind]

    def wait_for(self, kind: str, times: int, timeout_s: float) -> None:
        """Return when this kind bit so often. AssertionError: it did not in time."""
        with self._changed:
            in_time = self._changed.wait_for(lambda: self._by_kind[kind] >= times, timeout_s)
            seen = self._by_kind[kind]
        assert in_time, f"{kind}: bit {seen} of {times} times within {timeout_s:g} s"

    @property
    def total(self) -> int:
        """All bites."""
        with self._changed:
            return sum(self._by_kind.values())

    def by_kind(self) -> Mapping[str, int]:
        """Bites of each kind, in order of the names."""
        with self._changed:
            return dict(sorted(self._by_kind.items()))

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.by_kind().items())
        return f"{self.total} faults bit ({kinds})" if kinds else "no fault bit"
