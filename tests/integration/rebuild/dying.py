"""The steps at which a command can be killed, and the process that ends itself at one.

Stands apart from `killed.py` because a process that dies imports this, and nothing of the tests.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from ingest.settings import IngestSettings
from rebuild import builder, builds, compare, repair, run, swap
from rebuild.builder import Builder
from rebuild.report import Options, Report, Tell

ROWS: Final = 13
"""Events of a batch, in the bulk too: so few that every share of the log is met."""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Share:
    """As soon as so much of what the bulk is to bring was committed."""

    share: float

    def plant(self) -> None:
        """Let the process end there."""
        reached: Callable[..., bool] = Builder._reached

        def watched(filling: Any, wanted: Any) -> bool:
            if sum(filling._worker.positions().values()) >= self.share * sum(wanted.values()):
                _die()
            return reached(filling, wanted)

        Builder._reached = watched  # type: ignore[method-assign, assignment]


@dataclass(frozen=True, slots=True)
class Call:
    """Before one of the calls of a function, by its owner and name."""

    owner: Any
    name: str
    before: int = 1

    def plant(self) -> None:
        """Let the process end there."""
        found = getattr(self.owner, self.name)
        if isinstance(found, property):
            getter = found.fget
            assert getter is not None
            setattr(self.owner, self.name, property(_dies(getter, self.before)))
        else:
            setattr(self.owner, self.name, _dies(found, self.before))


def _dies(call: Callable[..., Any], before: int) -> Callable[..., Any]:
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == before:
            _die()
        return call(*args, **kwargs)

    return counted


@dataclass(frozen=True, slots=True)
class After:
    """When a statement that begins so was executed, before whatever would commit it."""

    text: str

    def plant(self) -> None:
        """Let the process end there."""
        execute = psycopg.Connection.execute

        def watched(connection: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            done = execute(connection, query, *args, **kwargs)
            if isinstance(query, str) and query.startswith(self.text):
                _die()
            return done

        psycopg.Connection.execute = watched  # type: ignore[method-assign, assignment]


Step = Share | Call | After
SHARES: Final = {f"{percent} % of the bulk is in": percent / 100 for percent in (25, 50, 75, 99)}
_SWITCH: Final[dict[str, Step]] = {
    "before the swap": Call(swap, "hold_live"),
    "while the live build is held": Call(swap, "refuse_unequal"),
    "in the middle of the switch": Call(swap, "close_retried"),
    "switched, not committed": Call(swap, "Swapped"),
    "committed": Call(Report, "ok"),
}
REBUILD: Final[Mapping[str, Step]] = {
    "made": Call(builds, "positions"),
    "nothing is in": Call(Builder, "go_to"),
    **{name: Share(share) for name, share in SHARES.items()},
    "before it is whole": Call(builds, "make_whole"),
    "rolled up, not committed": After("UPDATE build_2.orders SET paid"),
    "while it is made whole": Call(builds, "run_all", before=4),
    "in the middle of the sums": After("DELETE FROM build_2.daily_sales"),
    "while it is proved": Call(compare, "_ranges", before=3),
    **_SWITCH,
}
"""Steps of a command, by name, in the order in which it meets them."""
VERIFY: Final[Mapping[str, Step]] = {
    "half of the bulk is in": Share(0.5),
    "while it is made whole": Call(builds, "run_all", before=4),
    "while it is proved": Call(compare, "_ranges", before=3),
    "before its build is dropped": Call(builds, "drop"),
    "dropped, not committed": After("DROP SCHEMA IF EXISTS build_"),
}
AT_ONCE: Final[Mapping[str, Step]] = {
    "before the swap": Call(swap, "hold_live"),
    "while both builds are held": Call(swap, "switch"),
    "switched, not committed": After("SELECT pg_notify"),
    "committed": Call(Report, "ok"),
}
DROP: Final[Mapping[str, Step]] = {
    "before the drop": Call(builds, "drop"),
    "dropped, not committed": After("DROP SCHEMA IF EXISTS build_"),
}
REPAIR: Final[Mapping[str, Step]] = {
    "before workers are kept out": Call(swap, "hold_live"),
    "while workers are kept out": Call(repair, "_overwrite"),
    "old rows are gone": After("DELETE FROM build_1.orders"),
    "in the middle of the sums": After("DELETE FROM build_1.customer_totals"),
    "mended, not committed": After("SELECT pg_notify"),
    "committed": Call(repair, "Repaired"),
}
STEPS: Final[Mapping[str, Mapping[str, Step]]] = {
    "rebuild": REBUILD,
    "rebuild --order": REPAIR,
    "verify": VERIFY,
    "swap": _SWITCH,
    "swap --rollback": _SWITCH,
    "swap --rollback --now": AT_ONCE,
    "swap --drop-previous": DROP,
}
"""The steps of every command."""


class _Nobody:
    """Watches nothing."""

    def say(self, line: str) -> None:
        """Hear a line."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Tell]:
        """Hear how far a stage is."""
        yield lambda _done, _total: None


def call(command: str, settings: IngestSettings, *, order: str | None = None) -> Any:
    """A command, in this process."""
    watcher, stop = _Nobody(), threading.Event()
    calls: dict[str, Callable[[], Any]] = {
        "rebuild": lambda: run.rebuild(settings, Options(), watcher, stop),
        "rebuild --order": lambda: repair.repair(settings, order=order, stop=stop, say=watcher.say),
        "verify": lambda: run.verify(settings, Options(), watcher, stop),
        "swap": lambda: run.swap_ready(settings, watcher, stop),
        "swap --rollback": lambda: run.roll_back(settings, watcher, stop, now=False),
        "swap --rollback --now": lambda: run.roll_back(settings, watcher, stop, now=True),
        "swap --drop-previous": lambda: run.drop_previous(settings),
    }
    return calls[command]()


def die(command: str, step: str, settings: IngestSettings, order: str | None) -> None:
    """Call a command, and end at its step: what runs in a process of its own."""
    builder.BULK_ROWS = ROWS
    STEPS[command][step].plant()
    report = call(command, settings, order=order)
    assert report.ok
