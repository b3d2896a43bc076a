"""A rebuild in a process of its own that ends itself with SIGKILL at a given step.

`python -m tests.integration.rebuild.killed STEP`, settings in the environment.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from ingest import fold
from ingest.settings import IngestSettings
from rebuild import builds, compare, run, swap
from rebuild.builder import Builder
from rebuild.run import Options
from tests.integration.rebuild.parts import Watcher

Step = tuple[Any, str, int]
STEPS: dict[str, Step] = {
    "made": (builds, "positions", 1),
    "in the bulk": (Builder, "_reached", 8),
    "before it is whole": (builds, "make_whole", 1),
    "while it is made whole": (builds, "run_all", 4),
    "while it is proved": (compare, "_compare_table", 3),
    "before the swap": (swap, "hold_live", 1),
    "while the live build is held": (swap, "refuse_unequal", 1),
    "in the middle of the switch": (swap, "close_retried", 1),
    "switched, not committed": (swap, "Swapped", 1),
    "committed": (run.Report, "ok", 1),
}
"""By name: whose function, which one, and before which of its calls the process ends."""


def _dies(call: Callable[..., Any], before: int) -> Callable[..., Any]:
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == before:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)

    return counted


def main(step: str) -> None:
    """Rebuild and swap; never comes back."""
    owner, name, before = STEPS[step]
    found = getattr(owner, name)
    if isinstance(found, property):
        setattr(owner, name, property(_dies(lambda _self: True, before)))
    else:
        setattr(owner, name, _dies(found, before))
    settings = IngestSettings.model_validate({"batch_rows": 200})
    report = run.rebuild(settings, Options(), Watcher(), threading.Event())
    assert report.ok


assert fold  # the code that decides what rows become is the same in both processes

if __name__ == "__main__":
    main(sys.argv[1])
