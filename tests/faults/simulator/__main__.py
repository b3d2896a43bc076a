"""Play many schedules and tell what they met: `python -m tests.faults.simulator --report FILE`.

Exit 1 with the smallest schedule that breaks a promise, if one does.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.faults.simulator.search import MOVES_PER_SCHEDULE, search

AT_ONCE = 1_000
"""Seeds that a process takes at a time."""


def main() -> int:
    """Parse, play, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulator", description=__doc__)
    parser.add_argument("--schedules", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=10_000, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report", type=Path, help="a Markdown file to write")
    options = parser.parse_args()
    started_s = time.perf_counter()
    seeds = range(options.seed, options.seed + options.schedules)
    finding, met, cpu_s = played(seeds, options.processes)
    wall_s = time.perf_counter() - started_s
    text = _report(
        seeds, met, spent=f"{wall_s:.0f} s, {cpu_s:.0f} s of processor time", finding=finding
    )
    sys.stdout.write(text)
    if options.report is not None:
        options.report.write_text(text, "utf-8")
    return 0 if finding is None else 1


def played(seeds: Sequence[int], processes: int) -> tuple[str | None, Counter[str], float]:
    """The first finding as text, what was met, and the processors' seconds."""
    parts = [seeds[start : start + AT_ONCE] for start in range(0, len(seeds), AT_ONCE)]
    met: Counter[str] = Counter()
    finding, cpu_s = None, 0.0
    with ProcessPoolExecutor(processes) as pool:
        for found, of_part, spent_s in pool.map(_part, parts):
            met.update(of_part)
            cpu_s += spent_s
            finding = finding or found
    return finding, met, cpu_s


def _part(seeds: Sequence[int]) -> tuple[str | None, Counter[str], float]:
    before_s = time.process_time()
    finding, met = search(seeds)
    return None if finding is None else str(finding), met, time.process_time() - before_s


def _report(seeds: Sequence[int], met: Counter[str], *, spent: str, finding: str | None) -> str:
    command = f"python -m tests.faults.simulator --schedules {len(seeds)} --seed {seeds[0]}"
    verdict = "no promise was broken" if finding is None else f"**broken**\n\n```\n{finding}\n```"
    faults = sorted((count, what) for what, count in met.items() if what != "schedules")
    rows = "\n".join(f"| {what} | {count:,} |" for count, what in reversed(faults))
    return (
        f"# Schedules\n\n`{command}`: {met['schedules']:,} schedules of {MOVES_PER_SCHEDULE} moves"
        f" in {spent}, {os.cpu_count()} cores, Python"
        f" {sys.version.split()[0]}: {verdict}.\n\nThe worker's own page against a fake Kafka and a"
        " fake PostgreSQL; after each schedule everything is healed, and every row, counter and"
        " dead letter is compared with the log.\n\n"
        f"| met | times |\n|---|---|\n{rows}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
