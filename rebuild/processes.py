"""Where the processes of a bulk come from: a server that has imported all that they need.

Stands apart because the command line starts the server before it imports anything heavy itself:
each takes most of a second, and they do it at the same time. The server holds no thread and no
connection, so what is forked from it holds none either.
"""

import multiprocessing
from multiprocessing import forkserver
from typing import Final

CONTEXT: Final = multiprocessing.get_context("forkserver")
_NEEDED: Final = "rebuild.bulk"


def prepare(*programs: str) -> None:
    """Start the server, unless it runs. `programs` are modules of the running program: each process
    imports those too, unless the server has."""
    CONTEXT.set_forkserver_preload([*programs, _NEEDED])
    forkserver.ensure_running()
