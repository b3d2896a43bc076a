"""Runs the table: every test once as it is, then once for each mutant that it must find."""

import os
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

from tests.faults.mutants.mutant import Mutant
from tests.fixtures.databases import REPOSITORY

TEST_TIMEOUT_S = 600.0
_LEFT_OUT = shutil.ignore_patterns(".venv", ".git", ".*_cache", "__pycache__", ".hypothesis")
_FAILED = 1
"""Pytest's exit code where a test failed; any other is no verdict."""


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
        checkouts = [_planted(m, Path(folder)) for m in mutants]
        clean = _copied(Path(folder) / "clean")
        with ThreadPoolExecutor(at_once) as pool:
            codes = _without(clean, sorted({mutant.test for mutant in mutants}), pool)
            return list(pool.map(_Judge(codes, tell), mutants, checkouts))


def _without(clean: Path, tests: Sequence[str], pool: ThreadPoolExecutor) -> dict[str, int]:
    """How each test ends without a mutant: all at once, and where one fails, each by itself."""
    if _pytest(clean, *tests)[0] == 0:
        return dict.fromkeys(tests, 0)
    return dict(zip(tests, pool.map(lambda test: _pytest(clean, test)[0], tests), strict=True))


@dataclass(frozen=True, slots=True)
class _Judge:
    codes: dict[str, int]
    tell: Callable[[str], None]

    def __call__(self, mutant: Mutant, checkout: Path) -> Verdict:
        if self.codes[mutant.test] != 0:
            why = f"its test does not pass without it (code {self.codes[mutant.test]})"
            return Verdict(mutant, caught=False, why=why, seconds=0.0)
        code, seconds = _pytest(checkout, mutant.test)
        shutil.rmtree(checkout, ignore_errors=True)
        caught = code == _FAILED
        why = "" if caught else f"its test ended with code {code}"
        self.tell(f"{mutant.name}: {'caught' if caught else 'ESCAPED'} ({seconds:.0f} s)")
        return Verdict(mutant, caught=caught, why=why, seconds=seconds)


def _planted(mutant: Mutant, folder: Path) -> Path:
    checkout = _copied(folder / mutant.name)
    mutant.plant(checkout)
    return checkout


def _copied(to: Path) -> Path:
    shutil.copytree(REPOSITORY, to, ignore=_LEFT_OUT)
    return to


def _pytest(checkout: Path, *tests: str) -> tuple[int, float]:
    """Exit code and seconds of tests in a checkout, whose code comes before the installed.

    A group of processes of its own: what hangs is ended with the servers that it started.
    """
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
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
    return code, time.monotonic() - started


def table(verdicts: Iterable[Verdict]) -> str:
    """The verdicts as Markdown."""
    lines = ["| seeded bug | found by | |", "|---|---|---|"]
    for verdict in verdicts:
        mutant, outcome = verdict.mutant, "caught" if verdict.caught else "**ESCAPED**"
        lines.append(f"| {mutant.name}: {mutant.bug} | `{mutant.test}` | {outcome} {verdict.why} |")
    return "\n".join(line.replace("  |", " |") for line in lines)
