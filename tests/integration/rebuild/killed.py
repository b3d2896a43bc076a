"""Commands in a process of their own that ends itself with SIGKILL at a given step.

The processes come from the server that a rebuild's own come from (`rebuild.processes`), told to
import `dying` too: so a kill costs no start of an interpreter.
"""

import signal
from typing import Final

from rebuild import builds, processes
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.rebuild import dying
from tests.integration.rebuild.parts import Log, value

_END_S: Final = 120.0


def prepare() -> None:
    """Start the server of the processes, unless a rebuild in this one has started it."""
    processes.prepare("cli.main", dying.__name__)


def kill(command: str, step: str, log: Log, shop: Database, *, order: str | None = None) -> None:
    """Call a command that is killed at one of its steps, and wait until the server knows it."""
    settings = log.settings(shop).model_copy(update={"batch_rows": dying.ROWS})
    process = processes.CONTEXT.Process(
        target=dying.die, args=(command, step, settings, order), daemon=True
    )
    process.start()
    process.join(_END_S)
    assert process.exitcode == -signal.SIGKILL, f"{command} at {step!r}: {process.exitcode}"
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE %s"
    )
    eventually(
        lambda: value(shop, sessions, f"{builds.APPLICATION}%") == 0, _END_S, "its sessions end"
    )
