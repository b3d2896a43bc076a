"""COMMIT whose answer never came: landed, not landed, or landing after everybody gave up."""

import pytest

from tests.faults.harness.ground import Ground
from tests.faults.harness.pgproxy import CUT_AFTER, CUT_BEFORE, LATE, LATE_REFUSED
from tests.fixtures.waiting import PATIENCE_S

LEAST = 20


@pytest.mark.parametrize("kind", [CUT_BEFORE, CUT_AFTER, LATE])
def test_an_unknown_commit_neither_loses_nor_doubles_an_event(ground: Ground, kind: str) -> None:
    trickle = ground.trickle(ground.traffic(50_000, seed=len(kind)), per_s=200)
    workers = [ground.worker(), ground.worker()]
    ground.wait_for_share(*workers)
    ground.proxy.spoil(kind, 3 * LEAST)  # a late one may come too late, and is refused
    ground.bites.wait_for(kind, LEAST, PATIENCE_S)
    ground.proxy.heal()
    trickle.stop()
    ground.must_be_right()


def test_a_late_commit_whose_rows_are_wanted_is_ended_and_never_lands(ground: Ground) -> None:
    trickle = ground.trickle(ground.traffic(50_000, seed=5), per_s=100)
    ground.wait_ready(ground.worker())
    ground.wait_for_progress()
    ground.proxy.spoil(LATE, 2, late_s=20)
    ground.bites.wait_for(LATE_REFUSED, 2, PATIENCE_S)
    trickle.stop()
    ground.must_be_right()
