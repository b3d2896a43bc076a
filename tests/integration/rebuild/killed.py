"""A rebuild in a process of its own that ends itself with SIGKILL at a given step.

`python -m tests.integration.rebuild.killed STEP`, settings in the environment.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from ingest.settings import IngestSettings
from rebuild import builder, builds, compare, run, swap
from rebuild.builder import Builder
from rebuild.report import Options, Report
from tests.integration.rebuild.parts import Watcher

Step = tuple[Any, str, int]
SHARES = {f"{percent} % of the bulk is in": percent / 100 for percent in (25, 50, 75, 99)}
CALLS: dict[str, Step] = {
    "made": (builds, "positions", 1),
    "nothing is in": (Builder, "go_to", 1),
    "before it is whole": (builds, "make_whole", 1),
    "while it is made whole": (builds, "run_all", 4),
    "while it is proved": (compare, "_compare_table", 3),
    "before the swap": (swap, "hold_live", 1),
    "while the live build is held": (swap, "refuse_unequal", 1),
    "in the middle of the switch": (swap, "close_retried", 1),
    "switched, not committed": (swap, "Swapped", 1),
    "committed": (Report, "ok", 1),
}
"""By name: whose function, which one, and before which of its calls the process ends."""
STEPS = (*list(CALLS)[:2], *SHARES, *list(CALLS)[2:])
"""All of them in the order in which a rebuild meets them."""
ROWS = 13


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dies(call: Callable[..., Any], before: int) -> Callable[..., Any]:
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == before:
            _die()
        return call(*args, **kwargs)

    return counted


def _die_at(share: float) -> None:
    """End as soon as so much of what the bulk is to bring was committed."""
    reached = Builder._reached

    def watched(self: Builder, wanted: Any) -> bool:
        if sum(self._worker.positions().values()) >= share * sum(wanted.values()):
            _die()
        return reached(self, wanted)

    Builder._reached = watched  # type: ignore[method-assign]


def main(step: str) -> None:
    """Rebuild and swap; never comes back."""
    builder.BULK_ROWS = ROWS
    if step in SHARES:
        _die_at(SHARES[step])
    else:
        owner, name, before = CALLS[step]
        found = getattr(owner, name)
        if isinstance(found, property):
            setattr(owner, name, property(_dies(lambda _self: True, before)))
        else:
            setattr(owner, name, _dies(found, before))
    settings = IngestSettings.model_validate({"batch_rows": ROWS})
    report = run.rebuild(settings, Options(), Watcher(), threading.Event())
    assert report.ok


if __name__ == "__main__":
    main(sys.argv[1])
