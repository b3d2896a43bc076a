"""What a whole run of the fault tests must have met, and the report of a run. Pure.

Stands apart because a test can only say that its own fault bit: that none of them was left out, and
how often each bit for each seed, is known when all are over.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

LEAST: Final = 150
"""Faults that bite in a run of all tests that are no proofs."""
EXPECTED: Final[Mapping[str, int]] = {
    "commit cut after the server": 20,
    "commit cut before the server": 20,
    "commit delivered late": 20,
    "partition taken over from a paused owner": 20,
    "woken owner told that it was replaced": 8,
    **dict.fromkeys(
        (
            "all of a topic applied before any of the other",
            "an order and its payments met in its row",
            "batch that took longer than the poll interval",
            "backends killed in a loop",
            "broker away at start",
            "broker away in the middle",
            "broker frozen past its session",
            "broker restarted while a rebuild runs",
            "database away at start",
            "database away in the middle",
            "deadlock",
            "fail-over to a standby",
            "frozen transaction ended by the taker-over",
            "group offset moved away from the stored position",
            "immediate stop",
            "late commit refused by the server",
            "message at the size limit",
            "message past the size limit",
            "no connections left",
            "partition held up by an open transaction",
            "partition taken over by a worker that came",
            "partition taken over from a killed worker",
            "partition taken over from a worker that left",
            "partitions added under a worker",
            "position gone back by a restored backup",
            "position gone back in a fail-over",
            "postmaster killed in a loop",
            "PostgreSQL restarted while a rebuild runs",
            "producer fenced",
            "read-only",
            "rebalance in the middle of another",
            "rebalance while a rebuild runs",
            "rebuild refused",
            "records deleted past the position",
            "registry: cut",
            "registry: no schema in it",
            "registry: not found",
            "registry: other schema for a known id",
            "registry: redirect loop",
            "registry: server error",
            "registry: slow",
            "registry: too many requests",
            "registry: unavailable",
            "registry: wrong JSON",
            "registry away at start",
            "registry away in the middle",
            "SIGTERM with a batch in hand",
            "statement ended in mid-batch",
            "step failed at after-aggregates",
            "step failed at after-begin",
            "step failed at after-commit",
            "step failed at after-decode",
            "step failed at after-poll",
            "step failed at after-stage",
            "step failed at after-upsert",
            "step failed at before-commit",
            "step failed at in-assign",
            "stopped at a position in mid-stream",
            "topic paused in mid-stream",
            "topic recreated under a worker",
            "transaction aborted after its records landed",
            "worker frozen at after-begin",
            "worker frozen at after-upsert",
            "worker killed at after-aggregates",
            "worker killed at after-begin",
            "worker killed at after-commit",
            "worker killed at after-decode",
            "worker killed at after-poll",
            "worker killed at after-stage",
            "worker killed at after-upsert",
            "worker killed at before-commit",
            "worker kept from polling for longer than its poll interval",
            "worker killed at in-assign",
            "worker killed at in-outbox",
            "worker killed at in-revoke",
            "worker killed together with all others",
            "worker killed while a rebuild runs",
        ),
        1,
    ),
}
"""How often each kind bites at least in such a run. A full disk is none of them: not every machine
lets its users mount one."""


def lacking(bites: Mapping[str, int]) -> list[str]:
    """What a run of everything did not meet; empty: it tested what it is there for."""
    total = sum(bites.values())
    few = [f"{total} faults bit, {LEAST} are due"] if total < LEAST else []
    return few + [
        f"{kind}: bit {bites.get(kind, 0)} times, {least} are due"
        for kind, least in sorted(EXPECTED.items())
        if bites.get(kind, 0) < least
    ]


@dataclass(slots=True)
class Run:
    """One seed at one commit: of each test its bites by kind, how it ended, and its figures."""

    seed: int
    commit: str
    bites: dict[str, dict[str, int]] = field(default_factory=dict)
    tests: dict[str, str] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)

    def by_kind(self) -> Counter[str]:
        """The bites of all tests."""
        return sum(map(Counter, self.bites.values()), Counter())

    def renewed_by(self, later: Run) -> Run:
        """This run, and of each test that ran again only what came of it then; of another commit
        nothing is kept."""

        def renewed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
            return {name: of for name, of in before.items() if name not in later.tests} | after

        if later.commit != self.commit:
            return later
        return Run(
            self.seed,
            self.commit,
            renewed(self.bites, later.bites),
            renewed(self.tests, later.tests),
            renewed(self.figures, later.figures),
        )


def write_report(page: Path, run: Run) -> None:
    """Put a run into a report: a Markdown page with JSON beside it, one column for each seed."""
    data = page.with_suffix(".json")
    known = [Run(**each) for each in json.loads(data.read_text("utf-8"))] if data.exists() else []
    runs = {one.seed: one for one in known}
    runs[run.seed] = runs.get(run.seed, run).renewed_by(run)
    ordered = [runs[seed] for seed in sorted(runs)]
    page.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(json.dumps([asdict(one) for one in ordered], indent=2) + "\n", "utf-8")
    page.write_text(as_markdown(ordered), "utf-8")


def as_markdown(runs: Iterable[Run]) -> str:
    """The report as a page."""
    runs = list(runs)
    head = ("", *(f"seed {run.seed}, {run.commit}" for run in runs))
    bites = [run.by_kind() for run in runs]
    totals = ("all", *(f"{kinds.total():,}" for kinds in bites))
    lines = [
        "# Faults",
        "",
        "`make proof`: the long fault tests, once for each seed, at the commit told. A fault is"
        " counted where evidence shows that it happened, and a test whose fault did not bite has"
        " failed. After each, every row, counter and dead letter is what an independent program"
        " makes of the log.",
        "",
        *_table(head, [*_rows(bites, "0"), totals]),
        "",
        "## Tests",
        "",
        *_table(head, _rows([run.tests for run in runs], "not run")),
        "",
        "## Figures",
        "",
        *(
            f"- `{test}`, seed {run.seed}: {said}"
            for run in runs
            for test, said in run.figures.items()
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _rows(columns: Iterable[Mapping[str, Any]], none: str) -> list[tuple[str, ...]]:
    columns = list(columns)
    names = sorted({name for column in columns for name in column})
    return [(name, *(str(column.get(name, none)) for column in columns)) for name in names]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
