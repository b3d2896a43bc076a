"""Where a partition must stop: the breaker and the leader epoch, whatever the batches."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.breaker import IN_A_ROW, MOST_DEAD, WINDOW, Course, Stop, judge
from ingest.errors import Fault, Reason
from ingest.records import Dead, Event, Item, Made, Record

GOOD, BAD = False, True


def _record(offset: int, leader_epoch: int = 3) -> Record:
    return Record("orders", 0, offset, b"k", b"v", (), 0, leader_epoch)


def _item(offset: int, *, dead: bool, leader_epoch: int = 3) -> Item:
    record = _record(offset, leader_epoch)
    if dead:
        return Dead(record, Fault(Reason.BAD_MAGIC, "first byte is 7"), None, 3)
    return Event(record, (), 1, 1, Made([]), 0)


def _items(fates: Iterable[bool], *, first: int = 0) -> list[Item]:
    return [_item(first + at, dead=dead) for at, dead in enumerate(fates)]


def _stop(items: Sequence[Item], cuts: Sequence[int] = (), course: Course | None = None) -> object:
    """The offset of the stop, if there is one, with the items cut into batches at these places."""
    course = course or Course()
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(items)}), len(items)]
    for start, end in pairwise(bounds):
        course, stop = judge(course, items[start:end])
        if stop is not None:
            return stop.offset
    return None


def test_the_twentieth_dead_record_in_a_row_stops_the_partition() -> None:
    assert _stop(_items([GOOD] * 7 + [BAD] * 40)) == 7 + IN_A_ROW - 1
    assert _stop(_items(([BAD] * (IN_A_ROW - 1) + [GOOD] * WINDOW) * 5)) is None


def test_more_than_half_of_the_last_fifty_dead_stops_the_partition() -> None:
    every_other = [GOOD, BAD] * 200
    assert _stop(_items(every_other)) is None
    one_more = [GOOD, BAD] * 100 + [BAD]
    assert _stop(_items(one_more)) == 200


def test_a_few_records_are_no_window_yet() -> None:
    assert _stop(_items([BAD] * (IN_A_ROW - 1) + [GOOD] + [BAD] * 5)) is None
    assert _stop(_items([BAD] * (IN_A_ROW - 1) + [GOOD] + [BAD] * 10)) == MOST_DEAD + 1


def test_the_course_behind_a_stop_is_that_of_the_records_before_it() -> None:
    items = _items([BAD] * 30)
    course, stop = judge(Course(), items)
    assert stop is not None
    assert stop.offset == 19
    assert course == judge(Course(), items[:19])[0]
    assert judge(course, items[19:])[1] == Stop(19, stop.reason)


def test_the_reason_names_the_place_the_cause_and_both_ways_on() -> None:
    _course, stop = judge(Course(), _items([BAD] * 30, first=100))
    assert stop is not None
    for word in (
        "orders:0 is stopped at offset 119",
        "20 records in a row",
        "BAD_MAGIC",
        "viewkeeper resume orders 0`",
        "--accept-loss",
        "Stopped partition",
    ):
        assert word in stop.reason


def test_an_accepted_loss_does_not_count_and_the_count_begins_behind_it() -> None:
    course = Course(loss_accepted_until=100)
    assert _stop(_items([BAD] * 100), course=course) is None
    assert _stop(_items([BAD] * 200), course=course) == 100 + IN_A_ROW - 1
    assert _stop(_items([GOOD] * 90 + [BAD] * 40), course=course) == 100 + IN_A_ROW - 1


def test_dead_letters_on_record_are_no_new_loss() -> None:
    items = _items([BAD] * 60)
    assert judge(Course(), items, recorded=range(60))[1] is None
    stop = judge(Course(), items, recorded=range(30))[1]
    assert stop is not None
    assert stop.offset == 30 + IN_A_ROW - 1


def test_a_build_goes_past_what_was_lost_before_it() -> None:
    lost = [
        item._replace(on_record=True)
        for item in _items([BAD] * 3 * IN_A_ROW)
        if isinstance(item, Dead)
    ]
    assert _stop(lost) is None
    assert _stop([*lost, *_items([BAD] * IN_A_ROW, first=len(lost))]) == 4 * IN_A_ROW - 1


def test_an_older_leader_epoch_than_before_stops_the_partition() -> None:
    epochs = [1, 1, 2, 2, 1, 2]
    items = [_item(at, dead=False, leader_epoch=epoch) for at, epoch in enumerate(epochs)]
    _course, stop = judge(Course(leader_epoch=1), items)
    assert stop is not None
    assert stop.offset == 4
    assert "Log shorter than views" in stop.reason
    assert _stop(items[:4], course=Course(leader_epoch=5)) == 0


def test_a_broker_that_names_no_leader_epoch_stops_nothing() -> None:
    items = [_item(at, dead=False, leader_epoch=-1) for at in range(5)]
    assert _stop(items, course=Course(leader_epoch=9)) is None


@given(
    fates=st.lists(st.sampled_from([GOOD, BAD, BAD]), max_size=120),
    epochs=st.lists(st.sampled_from([0, 0, 0, 1]), min_size=120, max_size=120),
    cuts=st.lists(st.integers(0, 120), max_size=12),
    accepted=st.integers(0, 80),
)
def test_no_cut_of_the_batches_changes_where_it_stops(
    fates: list[bool], epochs: list[int], cuts: list[int], accepted: int
) -> None:
    # Epochs that only rise, but for one step down near the end.
    rising = list(accumulate(epochs))
    rising[-20:] = [epoch - 1 for epoch in rising[-20:]]
    items = [
        _item(at, dead=dead, leader_epoch=epoch)
        for at, (dead, epoch) in enumerate(zip(fates, rising, strict=False))
    ]
    course = Course(loss_accepted_until=accepted)
    whole = _stop(items, course=course)
    assert _stop(items, cuts, course) == whole
    assert _stop(items, range(len(items)), course) == whole


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_good_records_push_the_dead_ones_out_of_the_window(size: int) -> None:
    fates = ([BAD] * 19 + [GOOD] * 40) * 10
    assert _stop(_items(fates), range(0, len(fates), size)) is None
