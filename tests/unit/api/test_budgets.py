"""Budgets by a clock that the test sets."""

import pytest

from api.budgets import LEAST_COST, UNCOUNTED, Budgets
from api.errors import RateLimitedError
from api.proxies import address_of


class Clock:
    """Time, as the test wants it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def _budgets(clock: Clock, *, burst: float = 1_000) -> Budgets:
    return Budgets(cost_per_s=100, burst=burst, now_s=clock)


def test_a_bucket_is_overdrawn_once_and_filled_by_time(clock: Clock) -> None:
    budgets = _budgets(clock)
    budgets.take("ann", 900)
    budgets.require("ann")
    budgets.take("ann", 300)
    with pytest.raises(RateLimitedError) as caught:
        budgets.require("ann")
    assert caught.value.extensions == {"code": "RATE_LIMITED", "retryAfterMs": 2_000}
    clock.now_s = 1.5
    assert budgets.wait_s("ann") == pytest.approx(0.5)
    clock.now_s = 2.0
    budgets.require("ann")


def test_over_time_nobody_gets_more_than_the_rate(clock: Clock) -> None:
    budgets, taken = _budgets(clock), 0
    for _ in range(1_000):
        clock.now_s += 0.1
        if budgets.wait_s("ann") == 0:
            budgets.take("ann", 700)
            taken += 700
    assert taken <= 1_000 + 100 * clock.now_s + 700
    assert taken >= 100 * clock.now_s


def test_a_full_bucket_holds_no_more_than_its_burst(clock: Clock) -> None:
    budgets = _budgets(clock)
    budgets.take("ann", 500)
    clock.now_s = 3_600
    budgets.take("ann", 1_100)
    assert budgets.wait_s("ann") == pytest.approx(1.0)


def test_callers_do_not_pay_for_each_other(clock: Clock) -> None:
    budgets = _budgets(clock)
    budgets.take("ann", 5_000)
    budgets.require("bob")
    assert budgets.richest(["ann", "bob"]) == "bob"


def test_the_smallest_operation_costs_something(clock: Clock) -> None:
    budgets = _budgets(clock, burst=1)
    budgets.take("ann", 0)
    assert budgets.wait_s("ann") == pytest.approx((LEAST_COST - 1) / 100)


def test_memory_is_bounded_and_forgets_who_was_away_longest(clock: Clock) -> None:
    budgets = _budgets(clock, burst=1)
    for number in range(10_001):
        budgets.take(f"address {number}", 500)
    budgets.require("address 0")
    assert budgets.wait_s("address 1") > 0


def test_without_a_rate_nobody_is_counted() -> None:
    UNCOUNTED.take("ann", 10**9)
    UNCOUNTED.require("ann")


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("10.1.2.3", 80), "10.1.2.3"),
        (("::ffff:10.1.2.3", 80), "10.1.2.3"),
        (("2001:db8:1:2:3:4:5:6", 80), "2001:db8:1:2::"),
        (("2001:db8:1:2:ffff::1", 80), "2001:db8:1:2::"),
        (("x" * 999, 80), "x" * 64),
        (None, "local"),
    ],
)
def test_addresses_tell_subscribers_apart(client: object, address: str) -> None:
    assert address_of({"client": client}) == address
