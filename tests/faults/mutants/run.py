"""Runs the table: every test once as it is, then once for each mutant that it must find."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dev.cache import cache_dir
from tests.faults.mutants.mutant import Mutant
from tests.fixtures.databases import REPOSITORY

TEST_TIMEOUT_S = 600.0
_LEFT_OUT = shutil.ignore_patterns(
    ".venv", ".git", ".*_cache", "__pycache__", ".hypothesis", ".viewkeeper"
)
_FAILED = 1
"""Pytest's exit code where a test failed, or could not be made ready; any other is no verdict."""
_SAID_FAILED = re.compile(r"^FAILED ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: caught, or why not; and how long its test took."""

    mutant: Mutant
    caught: bool
    why: str
    seconds: float


def run(
    mutants: Sequence[Mutant], *, at_once: int, tell: Callable[[str], None] = lambda _text: None
) -> list[Verdict]:
    """The verdict on each mutant. NotPlantedError before anything runs."""
    with tempfile.TemporaryDirectory(prefix="viewkeeper-mutants-") as folder:
        for mutant in mutants:
            mutant.planted(REPOSITORY)
        clean = _copied(Path(folder) / "clean")
        with ThreadPoolExecutor(at_once) as pool:
            codes = _without(clean, sorted({mutant.test for mutant in mutants}), pool)
            return list(pool.map(_Judge(codes, Path(folder), tell), mutants))


def _without(clean: Path, tests: Sequence[str], pool: ThreadPoolExecutor) -> dict[str, int]:
    """How each test ends without a mutant: all at once, and where one fails, each by itself."""
    if _pytest(clean, *tests).code == 0:
        return dict.fromkeys(tests, 0)
    return dict(zip(tests, pool.map(lambda test: _pytest(clean, test).code, tests), strict=True))


@dataclass(frozen=True, slots=True)
class _Judge:
    codes: dict[str, int]
    folder: Path
    tell: Callable[[str], None]

    def __call__(self, mutant: Mutant) -> Verdict:
        if self.codes[mutant.test] != 0:
            why = f"its test does not pass without it (code {self.codes[mutant.test]})"
            return Verdict(mutant, caught=False, why=why, seconds=0.0)
        checkout = _copied(self.folder / mutant.name)
        mutant.plant(checkout)
        ended = _pytest(checkout, mutant.test)
        shutil.rmtree(checkout, ignore_errors=True)
        why = "" if ended.failed else f"its test ended with code {ended.code}, and none failed"
        self.tell(
            f"{mutant.name}: {'caught' if ended.failed else 'ESCAPED'} ({ended.seconds:.0f} s)"
        )
        return Verdict(mutant, caught=ended.failed, why=why, seconds=ended.seconds)


def _copied(to: Path) -> Path:
    shutil.copytree(REPOSITORY, to, ignore=_LEFT_OUT)
    return to


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a run of tests ended. `failed`: a test did, not what was to be there for it."""

    code: int
    failed: bool
    seconds: float


def _pytest(checkout: Path, *tests: str) -> _Ended:
    """Run tests in a checkout, whose code comes before the installed.

    A group of processes of its own: what hangs is ended with the servers that it started.
    """
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "PYTHONDONTWRITEBYTECODE": "1",
        "VIEWKEEPER_CACHE_DIR": str(cache_dir()),
    }
    with (checkout / "pytest.log").open("wb") as log:
        running = subprocess.Popen(
            command,
            cwd=checkout,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = running.wait(TEST_TIMEOUT_S * len(tests))
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            code = running.wait()
    said = (checkout / "pytest.log").read_text("utf-8", errors="replace")
    failed = code == _FAILED and _SAID_FAILED.search(said) is not None
    return _Ended(code, failed, time.monotonic() - started)


def table(verdicts: Iterable[Verdict]) -> str:
    """The verdicts as Markdown."""
    lines = ["| seeded bug | found by | |", "|---|---|---|"]
    for verdict in verdicts:
        mutant, outcome = verdict.mutant, "caught" if verdict.caught else "**ESCAPED**"
        lines.append(f"| {mutant.name}: {mutant.bug} | `{mutant.test}` | {outcome} {verdict.why} |")
    return "\n".join(line.replace("  |", " |") for line in lines)
