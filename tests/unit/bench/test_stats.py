"""Medians, ratios and percentiles say what the words mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stats import percentile, ratios, spread

_VALUES = st.lists(st.floats(min_value=1e-6, max_value=1e9), min_size=1, max_size=50)


def test_a_spread_holds_the_median_and_both_ends() -> None:
    found = spread([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)
    assert found.text(1) == "2.0 (1.0 to 3.0)"


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was ten times slower in the second round; the ratio does not see it.
    found = ratios([200.0, 20.0], [100.0, 10.0])
    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.0)


def test_sides_with_different_numbers_of_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rounds beside 1"):
        ratios([1.0, 2.0], [1.0])


def test_nothing_measured_is_an_error_and_not_a_figure() -> None:
    with pytest.raises(ValueError, match="no round"):
        spread([])
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="share"):
        percentile([1.0], 0)


@given(_VALUES, st.floats(min_value=0.001, max_value=1.0))
def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert sum(value <= found for value in values) >= share * len(values)
    below = [value for value in values if value < found]
    assert len(below) < share * len(values)


@given(_VALUES)
def test_the_median_lies_within_the_range(values: list[float]) -> None:
    found = spread(values)
    assert found.low <= found.median <= found.high
