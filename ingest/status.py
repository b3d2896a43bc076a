"""What the worker knows of itself, for its health page: one object, written by one thread."""

import threading
from dataclasses import dataclass, field

from ingest.operate import BuildProgress
from views.positions import Partition


@dataclass(slots=True)
class Status:
    """Why the worker is not ready, if it is not. Safe to read from any thread."""

    waiting_for: str | None = "the first assignment"
    refused: dict[Partition, str] = field(default_factory=dict)
    broker_problem: str | None = None
    owned: int = 0
    builds: tuple[BuildProgress, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def problems(self) -> list[str]:
        """Sentences, none of which must hold for the worker to be ready."""
        with self._lock:
            found = [p for p in (self.waiting_for, self.broker_problem) if p]
            return [*found, *(self.refused[p] for p in sorted(self.refused))]

    def wait_for(self, reason: str | None) -> None:
        """Say what the worker waits for; None: for nothing."""
        with self._lock:
            self.waiting_for = reason

    def broker_away(self, reason: str | None) -> None:
        """Say that the broker can't be asked; None: it can."""
        with self._lock:
            self.broker_problem = reason

    def refuse(self, partition: Partition, reason: str) -> bool:
        """Say why a partition is not read; whether that is news."""
        with self._lock:
            news = self.refused.get(partition) != reason
            self.refused[partition] = reason
            return news

    def accept(self, partition: Partition) -> None:
        """The partition is read, or somebody else's."""
        with self._lock:
            self.refused.pop(partition, None)
