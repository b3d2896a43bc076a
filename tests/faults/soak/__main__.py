"""`python -m tests.faults.soak --minutes 10 --seed 1`: run, report, exit 1 if anything is wrong.

Exit 1 also where fewer than three faults a minute bit: nothing was proved then.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults.soak.report import as_json, as_markdown, passed
from tests.faults.soak.run import Plan, soak


def main() -> int:
    """The exit code."""
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="viewkeeper-soak-") as folder:
        plan = Plan(
            minutes=given.minutes, seed=given.seed, brokers=given.brokers, folder=Path(folder)
        )
        result = soak(plan, lambda said: print(said, file=sys.stderr, flush=True))
        if given.keep_logs is not None and not passed(result):
            _keep(Path(folder), given.keep_logs)
    page = as_markdown(result)
    print(page)
    if given.report is not None:
        given.report.parent.mkdir(parents=True, exist_ok=True)
        given.report.write_text(page, "utf-8")
        given.report.with_suffix(".json").write_text(as_json(result), "utf-8")
    return 0 if passed(result) else 1


def _keep(folder: Path, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        (to / log.name).write_bytes(log.read_bytes())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--brokers", type=int, default=1, choices=(1, 3))
    parser.add_argument("--report", type=Path, help="a Markdown file; JSON goes beside it")
    parser.add_argument("--keep-logs", type=Path, help="where logs go if something is wrong")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
