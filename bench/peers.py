"""The environment of the peers: Quix Streams and the stock service, apart from the product's.

Stands apart because their versions and ours need not agree. `python -m bench.peers` prints what the
lock is made from.
"""

import compileall
import hashlib
import sysconfig
import tomllib
import venv
from pathlib import Path
from typing import Final

from bench.stage import CHECKOUT, Stage
from dev.cache import home_dir

PEERS_LOCK: Final = CHECKOUT / "requirements-bench.lock"
SETUP_TIMEOUT_S: Final = 600.0
ROOMS: Final = ("api", "bench", "cli", "dev", "ingest", "rebuild", "schemas", "views")


def peers_python() -> Path:
    """The interpreter of the environment; `prepare` makes it."""
    return home_dir() / "bench-venv" / "bin" / "python"


def prepare(stage: Stage) -> None:
    """Make the environment if it is not there; compile ours, so that nobody does on the clock."""
    fingerprint = hashlib.sha256(PEERS_LOCK.read_bytes()).hexdigest()[:12]
    python = peers_python()
    folder = python.parents[1]
    mark = folder / f"made-from-{fingerprint}"
    if not mark.exists():
        venv.create(folder, clear=True, with_pip=True)
        install = ["-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(PEERS_LOCK)]
        with stage.child("bench-venv", [str(python), *install]) as child:
            child.result(SETUP_TIMEOUT_S)
        mark.touch()
    places = (Path(sysconfig.get_path("purelib")), *(CHECKOUT / room for room in ROOMS))
    for place in places:
        compileall.compile_dir(place, quiet=2, workers=0)


def main() -> None:
    """The peers' requirements, one a line."""
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    print("\n".join(extras["bench"]))


if __name__ == "__main__":
    main()
