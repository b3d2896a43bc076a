"""The worker's own page under seeded schedules: crashes, zombies, rebalances, unknown commits."""

import os
import time
from collections.abc import Callable

import pytest

from tests.faults.simulator.__main__ import played
from tests.faults.simulator.database import Database
from tests.faults.simulator.search import search

TWO_MINUTES_S = 120.0
FAULTS = (
    "killed",
    "frozen",
    "expelled",
    "commit applied, outcome unknown",
    "commit not applied, outcome unknown",
    "commit late",
    "fail-over",
    "swap",
    "swap lost",
)


class Unfenced(Database):
    """A database whose fence lets everybody pass: the bug that the fence is there for."""

    fenced = False


def test_no_schedule_breaks_a_promise() -> None:
    finding, met = search(range(4_000))
    assert finding is None, str(finding)
    assert met["schedules"] == 4_000
    assert not [fault for fault in FAULTS if met[fault] == 0], met


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_no_schedule_of_fifty_thousand_breaks_a_promise_in_two_minutes(
    fault_seed: int, record_property: Callable[[str, object], None]
) -> None:
    first = 10_000 + 50_000 * (fault_seed - 1)
    started_s = time.perf_counter()
    finding, met, cpu_s = played(range(first, first + 50_000), os.cpu_count() or 1)
    took_s = time.perf_counter() - started_s
    record_property("said", f"{met['schedules']:,} schedules in {took_s:.0f} s, CPU {cpu_s:.0f} s")
    assert finding is None, finding
    assert met["schedules"] == 50_000
    assert not [fault for fault in FAULTS if met[fault] == 0], met
    assert took_s <= TWO_MINUTES_S


def test_a_missing_fence_is_found() -> None:
    finding, _met = search(range(2_000), database=Unfenced)
    assert finding is not None
    assert finding.schedule.moves
