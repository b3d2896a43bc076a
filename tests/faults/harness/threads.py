"""Threads whose failure is not lost: whoever stops them is told what ended them.

Stands apart because a run whose load or readers died half-way would otherwise pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence


class Threads:
    """So many loops, each on a thread of its own. They end when `stopping` is set."""

    def __init__(self, loops: Sequence[Callable[[], None]]) -> None:
        self.stopping = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(loop,), daemon=True) for loop in loops
        ]

    def start(self) -> None:
        """Start all."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """End all, and wait for each so long. What ended one before its time is raised here."""
        self.stopping.set()
        for thread in self._threads:
            thread.join(timeout_s)
            assert not thread.is_alive(), "a thread did not end"
        if self._errors:
            raise self._errors[0]

    def _run(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:  # noqa: BLE001 - raised by `stop`, in the caller's thread
            self._errors.append(error)
