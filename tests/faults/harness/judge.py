"""Says what is wrong once everything has settled: I1 by the oracle, I2, I3, I7 and I9.

Stands apart because the tests and the soak judge by the same page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import psycopg

from tests.faults.harness import chain
from tests.faults.harness.producers import Ledger
from tests.faults.oracle import Expected, Record, Registry, check_invariants, expect, read_log
from tests.faults.oracle.compare import differences, hold
from views import CATALOGUE

BUILD = "build_1"


@dataclass(slots=True)
class Verdict:
    """What was judged, and the problems by invariant."""

    records: int = 0
    problems: dict[str, list[str]] = field(default_factory=dict)

    @property
    def anomalies(self) -> int:
        """How many problems there are."""
        return sum(len(found) for found in self.problems.values())

    def __str__(self) -> str:
        shown = [f"{name}: {said}" for name, found in self.problems.items() for said in found[:8]]
        return f"{self.anomalies} anomalies in {self.records} records\n" + "\n".join(shown)


def judge(*, dsn: str, bootstrap: str, registry_url: str, ledger: Ledger | None) -> Verdict:
    """Hold the build at the end of the log against everything that must be true of it."""
    records, ends = read_log(bootstrap, CATALOGUE.topics)
    held = hold(dsn, BUILD)
    expected = expect(records, Registry(registry_url), next_offsets=ends, recorded=held.recorded)
    return Verdict(
        len(records),
        {
            "I1 rows": [str(said) for said in differences(held, expected)],
            "I2 offset chain": chain.problems(chain.read(dsn)),
            "I3 producers": [] if ledger is None else ledger.problems(records),
            "I7 conservation": [str(said) for said in check_invariants(dsn, BUILD)],
            "I9 accounting": [
                *accounting(_counted(dsn), records, ends),
                *spent_on_an_outage(expected),
            ],
        },
    )


def spent_on_an_outage(expected: Expected) -> list[str]:
    """Dead letters whose schema is known: no schema comes late here, so each was good all along."""
    return [
        f"{topic}:{partition}@{offset}: a dead letter, though its record is good"
        for topic, partition, offset in sorted(expected.cured)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a partition's row says: every counter summed, its dead alone, and the letters it has."""

    counted: int
    dead: int
    next_offset: int
    letters: int


def accounting(
    rows: Mapping[tuple[str, int], Counted],
    records: Iterable[Record],
    ends: Mapping[tuple[str, int], int],
) -> list[str]:
    """Counters + control and aborted = length of the log; each poison has one dead letter."""
    seen = Counter((record.topic, record.partition) for record in records)
    found = []
    for at, row in rows.items():
        place, hidden = f"{at[0]}:{at[1]}", ends[at] - seen[at]
        if row.counted + hidden != row.next_offset:
            found.append(
                f"{place}: {row.counted} counted and {hidden} control or aborted are not"
                f" {row.next_offset}"
            )
        if row.dead != row.letters:
            found.append(f"{place}: {row.dead} counted dead, {row.letters} dead letters")
    return found


def _counted(dsn: str) -> dict[tuple[str, int], Counted]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT topic, partition, applied + superseded + duplicates + tombstones + dead, dead,"
            " next_offset, (SELECT count(*) FROM ingest.dead_letters d"
            '   WHERE d.topic = p.topic AND d.partition = p.partition AND d."offset" < next_offset)'
            f" FROM {BUILD}.positions p"
        ).fetchall()
    return {
        (topic, partition): Counted(
            counted=counted, dead=dead, next_offset=next_offset, letters=letters
        )
        for topic, partition, counted, dead, next_offset, letters in rows
    }
