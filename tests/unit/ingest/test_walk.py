"""The strict walk: exact about where an event ends, and safe on any bytes whatever."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import DeadRecordError, Fault, Reason
from ingest.walk import MAX_DEPTH, MAX_ITEMS, Walk, compile_walk, end_of_body
from schemas.avro import without_logical_types
from tests.unit.ingest.shop import ANSWERS, IDS, body, order, payment

_FEW_BYTES = 100_000


def _walk_of(schema_id: int) -> Walk:
    return compile_walk(without_logical_types(json.loads(ANSWERS[schema_id][0])))


ORDERS, PAYMENTS = _walk_of(IDS.orders), _walk_of(IDS.payments)
EVOLVED, NULLS = _walk_of(IDS.orders_evolved), _walk_of(IDS.orders_nulls)


def _fault(walk: Walk, data: bytes) -> Fault | None:
    try:
        end_of_body(walk, data, header_bytes=5)
    except DeadRecordError as error:
        return error.fault
    return None


def _walk(schema: Any) -> Walk:
    return compile_walk(schema)


@given(seed=st.integers(0, 10_000))
def test_what_a_writer_wrote_is_walked_to_its_end(seed: int) -> None:
    assert _fault(ORDERS, body(order(seed))) is None
    assert _fault(PAYMENTS, body(payment(seed))) is None
    assert _fault(EVOLVED, body(order(seed, "orders_evolved"))) is None


@pytest.mark.parametrize("of", ["orders", "payments"])
def test_an_event_cut_off_at_any_byte_is_truncated(of: str) -> None:
    walk, whole = (ORDERS, body(order(3))) if of == "orders" else (PAYMENTS, body(payment(3)))
    for length in range(len(whole)):
        fault = _fault(walk, whole[:length])
        assert fault is not None, length
        assert fault.reason is Reason.TRUNCATED, (length, fault)
        assert fault.at_byte is not None
        assert fault.at_byte <= length + 5


@given(seed=st.integers(0, 200), behind=st.binary(min_size=1, max_size=20))
def test_bytes_behind_an_event_are_told_with_their_place(seed: int, behind: bytes) -> None:
    whole = body(order(seed))
    fault = _fault(ORDERS, whole + behind)
    assert fault is not None
    assert fault.reason is Reason.TRAILING_BYTES
    assert fault.at_byte == len(whole) + 5


@pytest.mark.parametrize(
    ("schema", "data", "reason"),
    [
        ("long", b"\x80" * 10 + b"\x01", Reason.MALFORMED),
        ("long", b"\xff" * 9 + b"\x02", Reason.MALFORMED),
        ("int", b"\x80\x80\x80\x80\x10", Reason.MALFORMED),
        ("string", b"\x01", Reason.MALFORMED),
        ("string", b"\xfe\xff\xff\xff\x0f", Reason.TRUNCATED),
        ("string", b"\x06\xff\xfe\xfd", Reason.MALFORMED),
        ("boolean", b"\x02", Reason.MALFORMED),
        (["null", "long"], b"\x04", Reason.MALFORMED),
        (["null", "long"], b"\x01", Reason.MALFORMED),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x02", Reason.MALFORMED),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x01", Reason.MALFORMED),
        ({"type": "fixed", "name": "F", "size": 3}, b"ab", Reason.TRUNCATED),
        ({"type": "array", "items": "long"}, b"\x01\x01\x02\x00", Reason.MALFORMED),
        ({"type": "map", "values": "long"}, b"\x02\x02\xff\x02\x00", Reason.MALFORMED),
    ],
)
def test_what_avro_does_not_allow_is_told(schema: Any, data: bytes, reason: Reason) -> None:
    fault = _fault(_walk(schema), data)
    assert fault is not None
    assert fault.reason is reason, fault


def test_the_longest_numbers_are_numbers() -> None:
    for data in (b"\xff" * 9 + b"\x01", b"\xfe" + b"\xff" * 8 + b"\x01"):
        assert _fault(_walk("long"), data) is None


def test_a_list_may_come_in_blocks_with_or_without_their_size() -> None:
    walk = _walk({"type": "array", "items": "long"})
    assert _fault(walk, b"\x02\x02\x04\x02\x02\x00") is None
    assert _fault(walk, b"\x01\x02\x02\x00") is None
    assert _fault(walk, b"\x03\x04\x02\x02\x00") is None


def test_the_size_of_a_block_matters_to_those_alone_who_pass_it_over() -> None:
    schema = {"type": "array", "items": "long"}
    for wrong in (b"\x01\x04\x02\x00", b"\x01\x00\x02\x00", b"\x01\x01\x02\x00"):
        fault = _fault(compile_walk(schema), wrong)
        assert fault is not None
        assert fault.reason is Reason.MALFORMED
        assert _fault(compile_walk(schema, check_sizes=False), wrong) is None


def test_a_bomb_of_nulls_is_refused_by_its_count() -> None:
    millions = body(order(1, "orders_nulls", nulls=[]))[:-1] + b"\x80\xb4\x89\x13\x00"
    fault, peak = _measured(NULLS, millions)
    assert fault is not None
    assert fault.reason is Reason.OVER_LIMIT
    assert peak < _FEW_BYTES


def test_many_small_blocks_count_together() -> None:
    walk = _walk({"type": "array", "items": "null"})
    assert _fault(walk, b"\x02" * MAX_ITEMS + b"\x00") is None
    fault = _fault(walk, b"\x02" * (MAX_ITEMS + 1) + b"\x00")
    assert fault is not None
    assert fault.reason is Reason.OVER_LIMIT


RECURSIVE = {
    "type": "record",
    "name": "Nest",
    "namespace": "any.where",
    "fields": [{"name": "inner", "type": ["null", "Nest"]}],
}


def test_a_recursive_event_is_bounded() -> None:
    walk = _walk(RECURSIVE)
    assert _fault(walk, b"\x02" * 10 + b"\x00") is None
    fault = _fault(walk, b"\x02" * (MAX_DEPTH + 1) + b"\x00")
    assert fault is not None
    assert fault.reason is Reason.OVER_LIMIT
    assert _fault(walk, b"\x02" * 1_000_000) == fault


@given(data=st.binary(max_size=300))
def test_no_bytes_break_the_walk(data: bytes) -> None:
    for walk in (ORDERS, PAYMENTS, EVOLVED, NULLS):
        _fault(walk, data)


@given(seed=st.integers(0, 50), at=st.integers(0, 500), patch=st.binary(min_size=1, max_size=12))
def test_no_spoiled_event_takes_more_memory_than_a_good_one(
    seed: int, at: int, patch: bytes
) -> None:
    good = body(order(seed, "orders_nulls", nulls=[]))
    at %= len(good)
    _, peak = _measured(NULLS, good[:at] + patch + good[at + len(patch) :])
    assert peak < _FEW_BYTES


def _measured(walk: Walk, data: bytes) -> tuple[Fault | None, int]:
    tracemalloc.start()
    try:
        fault = _fault(walk, data)
        return fault, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
