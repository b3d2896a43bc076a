"""A rebuild beside live ingest and queries: nobody who reads or writes notices it.

The load, the rebuild and what is looked at are the benchmark's (`bench/rebuild.py`), on servers of
its own; here its figures must keep their bounds. The report of a million events is committed.
"""

from typing import Final

import pytest

from bench import report, results
from bench.__main__ import PARTITIONS, SEED
from bench.eventlog import produce
from bench.rebuild import BesideSample, Load, beside
from bench.stage import Stage
from tests.fixtures.databases import REPOSITORY

THIS: Final = "tests/integration/rebuild/test_beside_live_load.py"
REPORT: Final = REPOSITORY / "docs" / "proof" / "rebuild.md"
MOST_LAG_MS: Final = 5_000
MOST_P99: Final = 2.0
PACE_KEPT: Final = 0.99
SMALL, MILLION = 20_000, 1_000_000


def broken(found: BesideSample, load: Load) -> list[str]:
    """The bounds that a run did not keep."""
    bounds = {
        f"{found.failed} queries failed": found.failed == 0,
        f"{found.mixed} answers mixed builds or moments": found.mixed == 0,
        f"{found.went_back} sessions went back": found.went_back == 0,
        f"{found.without_lag} answers did not say how old they are": found.without_lag == 0,
        f"answers came from {found.builds_seen} builds": found.builds_seen == 2,
        f"the live views were {found.most_lag_ms} ms old": found.most_lag_ms < MOST_LAG_MS,
        f"live ingest took {found.live_rate:.0f} events/s": (
            found.live_rate >= PACE_KEPT * load.events_per_s
        ),
        f"p99 was {found.p99_ms:.1f} ms, and {found.p99_idle_ms:.1f} ms without": (
            found.p99_ms <= MOST_P99 * found.p99_idle_ms
        ),
        "not every row was proved at the end": found.rows_proved > 0,
    }
    return [said for said, kept in bounds.items() if not kept]


@pytest.mark.proof
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("events", "load"),
    [
        pytest.param(SMALL, Load(events_per_s=200, queries_per_s=20, idle_s=10), id="small"),
        pytest.param(MILLION, Load(idle_s=60), id="million"),
    ],
)
def test_rebuilt_swapped_and_rolled_back_beside_live_load_and_nobody_notices(
    events: int, load: Load
) -> None:
    with Stage(partitions=PARTITIONS) as stage:
        log = produce(stage.kafka.bootstrap_servers, stage.schema_ids, events=events, seed=SEED)
        found = beside(stage, log, load, say=print)
    missed = broken(found, load)
    table = report.beside_table(found, load)
    print(table)
    if events == MILLION:
        command = f"make proof ARGS='{THIS} -k million'"
        conditions = results.Conditions(
            command=command, events=events, partitions=PARTITIONS, rounds=1
        )
        verdict = f"**Missed**: {'; '.join(missed)}." if missed else "Every bound was kept."
        page = f"# Proof of a rebuild\n\n{verdict}\n\n{table.markdown(results.origin(conditions))}"
        REPORT.write_text(page, "utf-8")
    assert missed == []
