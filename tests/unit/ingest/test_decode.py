"""The decoder: many at once reads what one by one reads, and each fault has its reason and move."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import decode
from ingest.columns import Rows
from ingest.errors import Reason, RefusedError, TransientError
from ingest.records import Dead, Event, Item, Record, Removal
from tests.fixtures.content import order_content
from tests.fixtures.poison import SHAPES, Poisoner, reasons_of
from tests.unit.ingest.shop import (
    ANSWERS,
    IDS,
    WRITE,
    FakeRegistry,
    Made,
    order,
    payment,
    record,
    said,
)

MADE = Made()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown id is given up after one look, so that no test waits for it; two of a schema are
    read in bulk, so that one is read alone and a crowd is not."""
    monkeypatch.setattr(decode, "UNKNOWN_GRACE_S", 0.0)
    monkeypatch.setattr(decode, "LEAST_IN_BULK", 2)


def poison(shape: str, seed: int = 7) -> Record:
    poisoner = Poisoner(
        rng=random.Random(seed),
        write=WRITE,
        ids=IDS,
        topics=("orders", "payments"),
        shapes=(shape,),
    )
    made = poisoner.make("o-1")
    return record(made.value, key=made.key, topic=made.topic)


def dead(item: Item) -> Dead:
    assert isinstance(item, Dead), item
    return item


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("beside", [0, 1, 70])
def test_each_shape_of_poison_has_its_reason_alone_and_in_a_crowd(shape: str, beside: int) -> None:
    good = [order(seed) if seed % 2 else payment(seed) for seed in range(beside)]
    at = beside // 2
    records = [*good[:at], poison(shape), *good[at:]]
    items = MADE.decode(records)
    assert [item.record for item in items] == records
    spoiled = dead(items.pop(at))
    assert spoiled.fault.reason in reasons_of(shape), spoiled.fault
    assert all(isinstance(item, Event) for item in items)


def _spoil(raw: bytes, way: int, at: int, patch: bytes) -> bytes:
    at = 5 + at % max(1, len(raw) - 5)
    if way == 0:
        return raw
    if way == 1:
        return raw[:at]
    if way == 2:
        return raw[:at] + patch + raw[at + len(patch) :]
    if way == 3:
        return raw[:at] + patch + raw[at:]
    return raw + patch


_NASTY = st.one_of(
    st.sampled_from(
        [
            b"\x01",
            b"\x03",
            b"\x7f",
            b"\x81\x01",
            b"\x80\x80\x00",
            b"\xff" * 9 + b"\x02",
            b"\xff" * 9 + b"\x01",
            b"\xff" * 10 + b"\x01",
            b"\x80\x80\x80\x80\x20",
            b"\x03\x01",
            b"\xfe\xff\xff\xff\x0f",
            b"\x06\xff\xfe\xfd",
        ]
    ),
    st.binary(min_size=1, max_size=4),
)
_WRITERS = ["orders", "orders_evolved", "orders_nulls"]


@st.composite
def spoiled_records(draw: st.DrawFn) -> Record:
    seed = draw(st.integers(0, 30))
    which = draw(st.sampled_from([*_WRITERS, "payments", "payments_evolved"]))
    extra: dict[str, Any] = {"nulls": []} if which == "orders_nulls" else {}
    good = payment(seed, which) if which.startswith("payments") else order(seed, which, **extra)
    raw = good.value or b""
    return good._replace(
        value=_spoil(
            raw,
            draw(st.sampled_from([0, 0, 1, 2, 2, 2, 3, 4])),
            draw(st.integers(0, 400)),
            draw(_NASTY),
        )
    )


@settings(max_examples=300, deadline=None)
@given(records=st.lists(spoiled_records(), min_size=2, max_size=12))
def test_many_at_once_are_read_as_one_by_one(records: list[Record]) -> None:
    alone = [MADE.decode([one])[0] for one in records]
    assert [said(item) for item in MADE.decode(records)] == [said(item) for item in alone]


def _of_each_writer() -> list[Record]:
    records = [order(seed, which) for seed in range(40) for which in ("orders", "orders_evolved")]
    records += [
        payment(seed, which) for seed in range(40) for which in ("payments", "payments_evolved")
    ]
    return records + [order(seed, customer_id=f"żółw-{seed}") for seed in range(9)]


def test_plain_events_are_read_in_bulk() -> None:
    """Otherwise the tests of crowds would show nothing, and ingest would be slow."""
    items = MADE.decode(_of_each_writer())
    assert [type(item.rows) for item in items if isinstance(item, Event)] == [Rows] * len(items)


def test_a_row_read_in_bulk_is_the_row_read_alone() -> None:
    records = _of_each_writer()
    alone = [MADE.decode([one])[0] for one in records]
    assert [said(item) for item in MADE.decode(records)] == [said(item) for item in alone]


def _at_every_byte(good: Record, patch: bytes) -> list[Record]:
    raw = good.value or b""
    return [good._replace(value=_spoil(raw, 2, at, patch)) for at in range(len(raw) - 5)]


@pytest.mark.parametrize("patch", [b"\x01", b"\x03", b"\x81\x01", b"\x80\x80\x80\x80\x20"])
@pytest.mark.parametrize("schema", ["orders", "orders_evolved"])
def test_a_wrong_number_anywhere_is_found_in_a_crowd_too(schema: str, patch: bytes) -> None:
    """Negative indexes, lengths and counts: a reader in a hurry takes some of them for good."""
    records = _at_every_byte(order(5, schema), patch)
    alone = [said(MADE.decode([one])[0]) for one in records]
    crowd = [item for one in records for item in MADE.decode([order(1, schema), one])[1:]]
    assert [said(item) for item in crowd] == alone


def test_a_status_before_the_first_is_no_status() -> None:
    good = order(2)
    customer = str(order_content(random.Random(2), "o-2", customers=5)["customer_id"]).encode()
    field = bytes([len(customer) * 2]) + customer
    assert good.value is not None
    bad = good._replace(value=good.value.replace(b"\x00" + field, b"\x01" + field, 1))
    for beside in ([], [order(1)], [order(seed) for seed in range(40)]):
        item = dead(MADE.decode([*beside, bad])[-1])
        assert item.fault.reason is Reason.MALFORMED


def _nested(levels: int) -> tuple[FakeRegistry, Record]:
    schema = json.loads(ANSWERS[IDS.orders][0])
    nest: dict[str, Any] = {"type": "record", "name": "Nest"}
    nest["fields"] = [{"name": "inner", "type": ["null", "Nest"], "default": None}]
    field = {"name": "nest", "type": ["null", nest], "default": None}
    schema["fields"] = [*schema["fields"], field]
    registry = FakeRegistry({77: (json.dumps(schema), "AVRO")} | ANSWERS)
    good = order(1)
    assert good.value is not None
    framed = b"\x00" + (77).to_bytes(4, "big") + good.value[5:]
    return registry, good._replace(value=framed + b"\x02" * levels + b"\x00")


def test_a_recursive_schema_is_read_and_its_depth_is_bounded() -> None:
    registry, shallow = _nested(3)
    _, deep = _nested(1_000_000)
    made = Made(registry)
    items = made.decode([shallow, deep, shallow])
    assert [type(item) for item in items] == [Event, Dead, Event]
    assert dead(items[1]).fault.reason is Reason.OVER_LIMIT


def test_a_null_value_hides_an_order_and_is_dead_on_payments() -> None:
    items = MADE.decode([record(None, key=b"o-9"), record(None, topic="payments")])
    assert isinstance(items[0], Removal)
    assert items[0].key == "o-9"
    assert dead(items[1]).fault.reason is Reason.NULL_VALUE


def test_a_symbol_of_a_newer_producer_becomes_unknown_and_is_told() -> None:
    made = Made()
    records = [
        order(1, "orders_evolved", status="RETURNED"),
        order(2, "orders_evolved", status="UNKNOWN"),
        payment(3, "payments_evolved", status="DISPUTED"),
        order(4, "orders_evolved", status="SHIPPED"),
    ]
    at = made.decoder.forms["orders"].columns.index("status")
    in_payments = made.decoder.forms["payments"].columns.index("status")
    rows = [item.row for item in made.decode(records) if isinstance(item, Event)]
    assert [rows[0][at], rows[1][at], rows[2][in_payments], rows[3][at]] == [
        "UNKNOWN",
        "UNKNOWN",
        "UNKNOWN",
        "SHIPPED",
    ]
    assert sorted(made.unlisted) == ["orders", "payments"]


def test_an_evolved_event_gives_the_row_of_a_plain_one() -> None:
    plain, evolved = MADE.decode([order(6), order(6, "orders_evolved")])
    assert isinstance(plain, Event)
    assert isinstance(evolved, Event)
    assert plain.row == evolved.row


# Schemas and outages.


def test_an_outage_of_the_registry_is_no_fault_of_an_event() -> None:
    made = Made()
    made.registry.away = True
    with pytest.raises(TransientError, match="connection refused"):
        made.decode([order(1), record(b""), payment(2)])
    made.registry.away = False
    assert [type(i) for i in made.decode([order(1), payment(2)])] == [Event, Event]


def test_a_schema_that_was_seen_is_read_through_an_outage() -> None:
    made = Made()
    made.decode([order(1), payment(1)])
    made.registry.away = True
    items = made.decode([order(2), payment(2), poison("truncated")])
    assert [type(item) for item in items] == [Event, Event, Dead]
    assert made.decoder.decode_again(items, afresh=True)


def test_a_schema_is_asked_for_once() -> None:
    made = Made()
    for seed in range(5):
        made.decode([order(seed)])
    assert made.registry.asked == [IDS.orders]


def test_an_unknown_id_gets_its_grace_and_is_then_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode, "UNKNOWN_GRACE_S", 0.05)
    monkeypatch.setattr(decode, "_GRACE_STEP_S", 0.01)
    made = Made()
    (item,) = made.decode([poison("unknown_schema")])
    assert dead(item).fault.reason is Reason.UNKNOWN_SCHEMA
    asked = len(made.registry.asked)
    assert asked >= 2
    made.decode([poison("unknown_schema")])
    assert len(made.registry.asked) == asked, "within a minute it is not asked for again"
    monkeypatch.setattr("ingest.decode.time.monotonic", _later(decode.UNKNOWN_KEPT_S + 1))
    made.registry.answers[IDS.unknown] = ANSWERS[IDS.orders]
    assert isinstance(made.decode([poison("unknown_schema")])[0], Event)


def _later(by_s: float) -> Callable[[], float]:
    now = time.monotonic
    return lambda: now() + by_s


def test_an_id_that_becomes_known_within_its_grace_is_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Late(FakeRegistry):
        def schema_by_id(self, schema_id: int) -> Any:
            if len(self.asked) == 2:
                self.answers[IDS.unknown] = ANSWERS[IDS.orders]
            return super().schema_by_id(schema_id)

    monkeypatch.setattr(decode, "UNKNOWN_GRACE_S", 30.0)
    monkeypatch.setattr(decode, "_GRACE_STEP_S", 0.001)
    made = Made(Late())
    assert isinstance(made.decode([poison("unknown_schema")])[0], Event)
    assert len(made.registry.asked) == 3


def test_a_suspect_has_three_attempts_and_a_fault_of_content_has_one() -> None:
    made = Made()
    items = made.decode([poison("truncated"), order(1), poison("version_0"), poison("empty")])
    assert [dead(items[at]).attempts for at in (0, 2, 3)] == [1, 1, 1]
    assert made.decoder.decode_again(items, afresh=True)
    assert made.registry.asked.count(IDS.orders) == 2, "the second attempt fetches the schema anew"
    assert [dead(items[at]).attempts for at in (0, 2, 3)] == [2, 1, 1]
    assert made.decoder.decode_again(items, afresh=False)
    assert [dead(items[at]).attempts for at in (0, 2, 3)] == [3, 1, 1]
    assert isinstance(items[1], Event)


def test_bad_events_in_every_batch_do_not_ask_the_registry_in_every_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made()

    def asked_for(*records: Record) -> int:
        before = len(made.registry.asked)
        assert made.decoder.decode_again(made.decode([*records]), afresh=True)
        return len(made.registry.asked) - before

    made.decode([order(1)])
    assert asked_for(poison("truncated")) == 1
    assert asked_for(poison("truncated"), poison("trailing")) == 0
    monkeypatch.setattr("ingest.decode.time.monotonic", _later(decode.FRESH_S + 1))
    assert asked_for(poison("truncated")) == 1


def test_a_batch_without_suspects_needs_no_second_attempt() -> None:
    made = Made()
    items = made.decode([order(1), poison("version_0"), record(None)])
    assert not made.decoder.decode_again(items, afresh=True)
    assert made.registry.asked == [IDS.orders]


def test_an_id_that_means_another_schema_than_before_is_refused() -> None:
    made = Made()
    made.decode([order(1)])
    changed = Made(FakeRegistry({IDS.orders: ANSWERS[IDS.orders_evolved]}), made.pins)
    with pytest.raises(RefusedError, match=f"schema id {IDS.orders} means another schema"):
        changed.decode([order(1)])


def test_the_same_schema_in_another_spelling_is_the_same() -> None:
    made = Made()
    made.decode([order(1)])
    text = json.dumps(json.loads(ANSWERS[IDS.orders][0]), indent=3, sort_keys=True)
    again = Made(FakeRegistry({IDS.orders: (text, "AVRO")}), made.pins)
    assert isinstance(again.decode([order(1)])[0], Event)


@pytest.mark.parametrize(
    ("schema", "word"), [("orders_scale", "decimal"), ("orders_millis", "timestamp")]
)
def test_the_same_bytes_with_another_meaning_are_incompatible(schema: str, word: str) -> None:
    item = dead(MADE.decode([order(1, schema)])[0])
    assert item.fault.reason is Reason.INCOMPATIBLE_SCHEMA
    assert word in item.fault.detail


def _with_type(name: str, kind: Any) -> str:
    schema = json.loads(ANSWERS[IDS.orders][0])
    for field in schema["fields"]:
        if field["name"] == name:
            field["type"] = kind
            field.pop("default", None)
    return json.dumps(schema)


@pytest.mark.parametrize(
    "text",
    [
        _with_type("amount", "string"),
        _with_type("placed_at", {"type": "int", "logicalType": "date"}),
        _with_type("placed_at", "int"),
        _with_type("items", {"type": "array", "items": "null"}),
        '"null"',
        '["null", "long"]',
        '{"type": "record"}',
        '{"type": "record", "name": "R"}',
        '{"type": "record", "name": "R", "fields": [{}]}',
        '{"type": "unheard_of"}',
        '{"type": "enum", "name": "E", "symbols": []}',
        "7",
        "[]",
        "{}",
        "null",
        json.dumps(["null", json.loads(ANSWERS[IDS.orders][0])]),
    ],
)
def test_a_schema_that_is_not_ours_breaks_nothing(text: str) -> None:
    """Whatever lies in the registry under an id, its events are dead and their neighbours live."""
    made = Made(FakeRegistry(ANSWERS | {88: (text, "AVRO")}))
    good = order(1)
    assert good.value is not None
    foreign = good._replace(value=b"\x00" + (88).to_bytes(4, "big") + b"\x00" + good.value[5:])
    items = made.decode([good, foreign, foreign, good])
    assert [type(item) for item in items] == [Event, Dead, Dead, Event]


def test_an_event_of_a_nullable_record_is_an_event() -> None:
    text = json.dumps(["null", json.loads(ANSWERS[IDS.orders][0])])
    made = Made(FakeRegistry(ANSWERS | {88: (text, "AVRO")}))
    good = order(1)
    assert good.value is not None
    in_union = good._replace(value=b"\x00" + (88).to_bytes(4, "big") + b"\x02" + good.value[5:])
    (plain,), (item,) = made.decode([good]), made.decode([in_union])
    assert isinstance(plain, Event)
    assert isinstance(item, Event)
    assert item.row == plain.row
