"""Looking into values that the decoder rejects."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.contracts import load
from schemas.encode import EncodeError, Encoder
from schemas.glance import framed_schema_id, glance

CONTRACT = load("orders.avsc")
CONTENT = {
    "event_id": "7f0b7c9c-6c38-4b2c-9d4b-3f0f4f3c7a11",
    "order_id": "o-1",
    "version": 3,
    "status": "SHIPPED",
    "customer_id": "greta",
    "currency": "EUR",
    "amount": Decimal("12.5"),
    "discount": None,
    "items": [{"sku": "mug", "quantity": 1, "unit_price": Decimal("-0.0001")}],
    "placed_at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "occurred_at": datetime(1969, 12, 31, tzinfo=UTC),
}
VALUE = Encoder(CONTRACT, 7).encode(CONTENT)


def test_a_whole_value_is_read_to_its_end() -> None:
    seen = glance(VALUE, CONTRACT.schema)
    assert framed_schema_id(VALUE) == 7
    assert seen.reason is None
    fields = dict(seen.fields)
    assert fields["amount"] == "12.5000"
    assert fields["discount"] is None
    assert fields["items"] == [{"sku": "mug", "quantity": 1, "unit_price": "-0.0001"}]
    assert fields["placed_at"] == "2026-01-02T03:04:05.000006+00:00"


@pytest.mark.parametrize("length", range(5, len(VALUE)))
def test_a_value_cut_off_anywhere_shows_the_fields_before_and_where_it_ends(length: int) -> None:
    seen = glance(VALUE[:length], CONTRACT.schema)
    assert seen.reason is not None
    assert seen.stopped_at_byte is not None
    assert seen.stopped_at_byte <= length
    whole = glance(VALUE, CONTRACT.schema).fields
    assert seen.fields == whole[: len(seen.fields)]


def test_bytes_left_over_are_pointed_at() -> None:
    seen = glance(VALUE + b"xx", CONTRACT.schema)
    assert (seen.stopped_at_byte, seen.reason) == (len(VALUE), "2 bytes are left over")


@given(st.binary(max_size=200))
def test_no_bytes_at_all_break_it(body: bytes) -> None:
    seen = glance(VALUE[:5] + body, CONTRACT.schema)
    assert len(seen.fields) <= len(CONTENT)


@pytest.mark.parametrize("value", [None, b"", b"\x00\x00", b"{}{}{}", b"\x01" + VALUE[1:]])
def test_a_value_without_the_frame_has_no_schema_id(value: bytes | None) -> None:
    assert framed_schema_id(value) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"amount": 12.5}, "write amounts as text"),
        ({"amount": "twelve"}, "is not an amount"),
        ({"placed_at": "yesterday"}, "is not a time"),
        ({"placed_at": "2026-01-01T00:00:00"}, "no offset from UTC"),
        ({"items": [{"sku": "a", "quantity": 1, "unit_price": 0.5}]}, "items[0].unit_price"),
        ({"colour": "red"}, "has no field colour"),
        ({"version": "one"}, "does not fit orders.avsc"),
    ],
)
def test_json_that_does_not_fit_a_contract_is_refused_by_name(
    change: dict[str, object], words: str
) -> None:
    encoder = Encoder(CONTRACT, 1)
    good = CONTENT | {
        "amount": "12.5",
        "items": [],
        "placed_at": "2026-01-01T01:00:00+01:00",
        "occurred_at": "2026-01-01T00:00:00Z",
    }
    assert encoder.from_json(good)["placed_at"] == datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(EncodeError) as error:
        encoder.encode(encoder.from_json(good | change))
    assert words in str(error.value)
