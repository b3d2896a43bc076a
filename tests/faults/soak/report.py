"""What came of a soak, for people (Markdown) and for programs (JSON). Pure.

The invariants are those of `docs/guarantees.md`; each is named even where nothing was found.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Final

from dev.cache import KAFKA_VERSION, POSTGRES_VERSION, REGISTRY_VERSION
from tests.faults.harness.pgproxy import CUT_AFTER, CUT_BEFORE, LATE, LATE_REFUSED
from tests.faults.soak.run import Injected, Result

INVARIANTS: Final = (
    "I1 rows",
    "I2 offset chain",
    "I3 producers",
    "I4 snapshots",
    "I5 sessions",
    "I6 positions",
    "I7 conservation",
    "I8 liveness",
    "I9 accounting",
    "I10 bounds",
    "I11 honesty",
)
LEAST_PER_MINUTE: Final = 3.0
ELSEWHERE: Final = (
    "Elsewhere: a kill and a failure at every step, deadlocks, full disks, logs that were changed,"
    " fail-over, restored backups and rebuilds are in `make test`; three brokers, outages of a"
    " minute and ten thousand pairs in `make proof`."
)
"""Which faults a soak leaves to the tests."""
_SHOWN: Final = 5


def passed(result: Result) -> bool:
    """No anomaly, enough faults that bit, and no kind that was tried and never did."""
    enough = result.bit_per_minute >= LEAST_PER_MINUTE
    return enough and not any(result.anomalies.values()) and not mute(result)


def mute(result: Result) -> list[str]:
    """The kinds that were injected and never bit: they were not tested."""
    bit = {fault.kind for fault in result.bit}
    return sorted({fault.kind for fault in result.faults} - bit)


def figures(result: Result) -> dict[str, Any]:
    """The report as data."""
    recovery = sorted(fault.recovery_s for fault in result.faults)
    return {
        "passed": passed(result),
        "command": f"make soak MINUTES={result.plan.minutes:g} SEED={result.plan.seed}",
        "day": result.day,
        "seed": result.plan.seed,
        "minutes": round(result.ran_s / 60, 2),
        "brokers": result.plan.brokers,
        "versions": _versions(),
        "records": {
            "sent": result.sent,
            "committed in the log": result.records,
            "dead letters": result.dead_letters,
            "repeated by a producer's client": result.repeated,
        },
        "transactions": dict(result.transactions),
        "faults": {
            "injected": len(result.faults),
            "bit": len(result.bit),
            "bit per minute": round(result.bit_per_minute, 2),
            "never bit": mute(result),
            "by kind": _by_kind(result.faults),
        },
        "unknown commits": {
            form: result.bites.get(form, 0) for form in (CUT_BEFORE, CUT_AFTER, LATE, LATE_REFUSED)
        },
        "takeovers": result.takeovers,
        "told that they were replaced": result.fenced,
        "recovery s": {
            "p50": _percentile(recovery, 0.5),
            "p95": _percentile(recovery, 0.95),
            "max": _percentile(recovery, 1.0),
        },
        "readers": {
            **result.checked,
            "refused": dict(sorted(result.codes.items())),
            "answer s": _spread(result.answer_s),
            "refusal s": _spread(result.refusal_s),
        },
        "use": {name: dict(row) for name, row in result.use.items()},
        "anomalies": {name: len(result.anomalies.get(name, ())) for name in INVARIANTS},
        "said": {name: said[:20] for name, said in result.anomalies.items() if said},
    }


def as_json(result: Result) -> str:
    """The report as JSON."""
    return json.dumps(figures(result), indent=2) + "\n"


def as_markdown(result: Result) -> str:
    """The report as a page."""
    told = figures(result)
    faults, recovery, readers = told["faults"], told["recovery s"], told["readers"]
    verdict = "passed" if told["passed"] else "**failed**"
    per_minute = faults["bit per minute"]
    lines = [
        "# Soak",
        "",
        f"`{told['command']}`, {told['day']}: {verdict}."
        f" {told['minutes']} minutes, seed {told['seed']},"
        f" {told['brokers']} broker{'s' if told['brokers'] > 1 else ''}, 3 workers, the API under"
        " reads. Every fault is counted by evidence that it happened; one that was only asked for"
        " does not count.",
        "",
        *_table(("what", "figure"), told["versions"].items()),
        "",
        f"{told['records']['sent']:,} records sent, {told['records']['committed in the log']:,}"
        f" committed in the log, {told['records']['dead letters']:,} dead letters,"
        f" {len(result.repeated)} records that a producer's client repeated; transactions:"
        f" {_words(told['transactions'])}.",
        "",
        "## Faults",
        "",
        f"{faults['injected']} injected, {faults['bit']} bit, {per_minute} a minute."
        f" Kinds that never bit: {', '.join(faults['never bit']) or 'none'}."
        f" {told['takeovers']} takeovers of a partition; {told['told that they were replaced']}"
        " times a worker was told that it was replaced. Recovery from the end of a fault until"
        f" everything is in and every worker ready: p50 {recovery['p50']} s,"
        f" p95 {recovery['p95']} s, max {recovery['max']} s.",
        "",
        *_table(
            ("fault", "injected", "bit", "evidence counted", "longest recovery s"),
            ((kind, *row.values()) for kind, row in faults["by kind"].items()),
        ),
        "",
        ELSEWHERE,
        "",
        "## Commits of unknown outcome",
        "",
        *_table(("form", "count"), told["unknown commits"].items()),
        "",
        "## Readers",
        "",
        *_table(
            ("what", "figure"),
            (
                *((name, f"{readers[name]:,}") for name in result.checked),
                ("refused, by code", _words(readers["refused"]) or "none"),
                ("an answer took", _words(readers["answer s"])),
                ("a refusal took", _words(readers["refusal s"]) or "none"),
            ),
        ),
        "",
        "## Use",
        "",
        "Medians of the first and the last quarter, of the longest life of each process.",
        "",
        *_table(("what", "figures"), ((name, _words(row)) for name, row in told["use"].items())),
        "",
        "## Anomalies",
        "",
        *_table(("invariant", "found"), told["anomalies"].items()),
        *(f"\n- {name}: {said}" for name, found in told["said"].items() for said in found[:_SHOWN]),
    ]
    return "\n".join(lines) + "\n"


def _versions() -> dict[str, str]:
    return {
        "viewkeeper": version("viewkeeper"),
        "Python": platform.python_version(),
        "PostgreSQL": POSTGRES_VERSION,
        "Apache Kafka": KAFKA_VERSION,
        "Apicurio Registry": REGISTRY_VERSION,
        "confluent-kafka": version("confluent-kafka"),
        "psycopg": version("psycopg"),
        "cores": str(os.cpu_count()),
    }


def _by_kind(faults: Iterable[Injected]) -> dict[str, dict[str, float]]:
    rows: dict[str, dict[str, float]] = {}
    for fault in faults:
        row = rows.setdefault(
            fault.kind, {"injected": 0, "bit": 0, "evidence": 0, "longest recovery s": 0.0}
        )
        row["injected"] += 1
        row["bit"] += fault.bites > 0
        row["evidence"] += fault.bites
        row["longest recovery s"] = max(row["longest recovery s"], round(fault.recovery_s, 1))
    return dict(sorted(rows.items()))


def _percentile(ordered: list[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2)


def _spread(values: list[float]) -> dict[str, float | None]:
    ordered = sorted(values)
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: _percentile(ordered, share) for name, share in shares.items()} if ordered else {}


def _words(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items())


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    lines = [" | ".join(str(cell) for cell in row) for row in rows]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {line} |" for line in lines)]
