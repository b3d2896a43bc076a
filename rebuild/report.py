"""What can be asked of a rebuild, who watches it, and what it answers. No behaviour, no I/O."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from rebuild.compare import Result
from rebuild.swap import Swapped


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an operator can ask of a rebuild."""

    swap: bool = True
    from_scratch: bool = False
    rate: float | None = None
    processes: int | None = None
    accept_missing: bool = False
    accept_differences: bool = False
    other_log: bool = False
    declared: tuple[str, ...] = ()
    retry_letters: bool = False
    free_bytes: int | None = None


class Watcher(Protocol):
    """Who watches: told what is being done, and how far it is."""

    def say(self, line: str) -> None:
        """A line for the person who watches."""

    def stage(self, title: str) -> AbstractContextManager["Tell"]:
        """Show how far a stage is."""


Tell = Callable[[int, int | None], None]


@dataclass(slots=True, kw_only=True)
class Report:
    """What was done. `seconds` by stage; `result` is None where no proof was possible."""

    build: str = ""
    live: str = ""
    resumed: bool = False
    events: int = 0
    position: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    result: Result | None = None
    swapped: Swapped | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether what was asked for was done and no difference found."""
        return self.result is None or self.result.equal or self.swapped is not None
