"""Texts that go out and come back: scalars, ids, cursors. Each is the inverse of the other."""

import string
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import scalars
from api.errors import BadUserInputError
from api.opaque import NotOursError, global_id, packed, row_of, unpacked
from api.page import CursorScope, Term, cursor_of, cursor_prefix, order_of, row_cursor
from api.types import daily_sales, orders, payments

STORABLE = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
MOMENTS = st.datetimes(timezones=st.just(UTC))
MONEY = st.decimals(-(10**30), 10**30, places=4)
# Hypothesis wants bounds without a zone.
YEARS = datetime(2, 1, 1), datetime(9998, 1, 1)  # noqa: DTZ001
SCOPE = CursorScope("Query.orders", "01234567")


@given(MOMENTS)
def test_a_moment_comes_back_as_it_went(moment: datetime) -> None:
    text = scalars.date_time_text(moment)
    assert scalars.date_time_of(text) == moment
    assert len(text) == 27


@given(MOMENTS, MOMENTS)
def test_texts_of_moments_sort_as_moments(one: datetime, other: datetime) -> None:
    texts = scalars.date_time_text(one), scalars.date_time_text(other)
    assert (one < other) == (texts[0] < texts[1])


@given(st.datetimes(*YEARS), st.integers(-14 * 60, 14 * 60))
def test_any_offset_names_the_same_moment(moment: datetime, minutes: int) -> None:
    there = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert scalars.date_time_of(there.isoformat(timespec="microseconds")) == there


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-31",
        "2026-01-31 09:30:00Z",
        "2026-01-31T09:30Z",
        "2026-01-31T09:30:00",
        "2026-01-31T09:30:00.1234567Z",
        "2026-01-31T24:00:00Z",
        "2026-02-30T09:30:00Z",
        "20260131T093000Z",
        "٢٠٢٦-01-31T09:30:00Z",
        "0001-01-01T00:00:00+01:00",
    ],
)
def test_what_is_no_rfc_3339_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        scalars.date_time_of(text)


@given(MONEY)
def test_money_shows_four_decimals_and_loses_nothing(amount: Decimal) -> None:
    text = scalars.decimal_text(amount)
    assert scalars.decimal_of(text) == amount
    assert len(text.partition(".")[2]) == 4


@pytest.mark.parametrize(
    "text", ["", "1e3", "NaN", "Infinity", "1.", ".5", "1.00001", "+1", "\uff11"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        scalars.decimal_of(text)


@given(st.integers())
def test_a_big_int_has_64_bits(number: int) -> None:
    if -(2**63) <= number < 2**63:
        assert scalars.big_int_of(str(number)) == number
    else:
        with pytest.raises(ValueError):
            scalars.big_int_of(str(number))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_packed_texts_come_back_and_need_no_quoting(parts: list[str]) -> None:
    text = packed(parts)
    assert unpacked(text) == parts
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")


@given(st.text(string.ascii_letters + string.digits + "-_=. é", max_size=40))
def test_other_texts_are_never_taken_for_packed_ones(text: str) -> None:
    try:
        parts = unpacked(text)
    except NotOursError:
        return
    assert packed(parts) == text


@given(STORABLE, STORABLE)
def test_a_global_id_names_its_row_whatever_the_key_holds(order_id: str, payment_id: str) -> None:
    types = {each.name: each for each in (orders.TYPE, payments.TYPE, daily_sales.TYPE)}
    node_id = global_id(payments.TYPE, (order_id, payment_id))
    assert row_of(node_id, types) == (payments.TYPE, (order_id, payment_id))


@given(STORABLE, MOMENTS)
def test_a_cursor_comes_back_with_its_key_and_position(order_id: str, placed_at: datetime) -> None:
    order = order_of(orders.TYPE, [{"field": "PLACED_AT", "direction": "DESC"}])
    row = {"order_id": order_id, "placed_at": placed_at}
    prefix = cursor_prefix(SCOPE, "orders:0:7")
    text = row_cursor(orders.TYPE, order, row=row, prefix=prefix)
    cursor = _read(text, order)
    assert (cursor.key, cursor.position) == ((placed_at, order_id), "orders:0:7")


@given(st.data(), STORABLE)
def test_a_cursor_with_one_letter_changed_is_refused(data: st.DataObject, order_id: str) -> None:
    order = order_of(orders.TYPE, None)
    prefix = cursor_prefix(SCOPE, "")
    text = row_cursor(orders.TYPE, order, row={"order_id": order_id}, prefix=prefix)
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_.=\x00é"))
    changed = text[:at] + letter + text[at + 1 :]
    if changed != text:
        with pytest.raises(BadUserInputError):
            _read(changed, order)


def test_an_order_is_made_total_by_the_key_in_the_direction_of_its_last_term() -> None:
    down = order_of(payments.TYPE, [{"field": "OCCURRED_AT", "direction": "DESC"}])
    assert down == (Term("occurred_at", True), Term("order_id", True), Term("payment_id", True))
    assert order_of(payments.TYPE, []) == (Term("order_id"), Term("payment_id"))


def _read(text: str, order: tuple[Term, ...]) -> Any:
    return cursor_of(text, name="after", view_type=orders.TYPE, order=order, scope=SCOPE)
