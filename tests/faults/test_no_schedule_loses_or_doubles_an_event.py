"""The worker's own page under seeded schedules: crashes, zombies, rebalances, unknown commits."""

import pytest

from tests.faults.simulator.database import Database
from tests.faults.simulator.search import search

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
def test_no_schedule_of_fifty_thousand_breaks_a_promise() -> None:
    finding, met = search(range(10_000, 60_000))
    assert finding is None, str(finding)
    assert met["schedules"] == 50_000


def test_a_missing_fence_is_found() -> None:
    finding, _met = search(range(2_000), database=Unfenced)
    assert finding is not None
    assert finding.schedule.moves
