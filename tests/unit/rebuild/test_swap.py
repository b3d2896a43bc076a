"""When two builds hold the same events, and what is said where they don't."""

import pytest

from ingest.errors import RefusedError
from rebuild.swap import refuse_unequal, same_vector
from views.positions import Partition

ENDS: dict[Partition, int] = {("orders", 0): 5, ("payments", 0): 2}


@pytest.mark.parametrize("other", [ENDS, ENDS | {("orders", 1): 0}])
def test_builds_at_one_position_hold_the_same_events(other: dict[Partition, int]) -> None:
    assert same_vector(ENDS, other)
    refuse_unequal("build_1", ENDS, "build_2", other)


@pytest.mark.parametrize(
    "other",
    [ENDS | {("orders", 0): 4}, ENDS | {("orders", 0): 6}, {("orders", 0): 5}, {}],
)
def test_a_build_that_holds_other_events_is_not_switched_to(other: dict[Partition, int]) -> None:
    with pytest.raises(RefusedError, match="nothing was switched"):
        refuse_unequal("build_1", ENDS, "build_2", other)
    with pytest.raises(RefusedError, match="nothing was switched"):
        refuse_unequal("build_1", other, "build_2", ENDS)
