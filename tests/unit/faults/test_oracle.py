"""The oracle's own rules, each on a log short enough to be judged by eye."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults.oracle import Expected, Record, WriterSchema, crosscheck, expect
from tests.faults.oracle.compare import Held, differences
from tests.faults.oracle.crosscheck import DisagreementError
from tests.faults.oracle.fold import Recorded
from tests.faults.oracle.rows import OPEN, Row
from tests.faults.oracle.walk import BrokenError, read_int, read_long
from tests.fixtures.content import Writer, money
from tests.fixtures.contracts import local_ids, schemas
from tests.fixtures.poison import SHAPES
from tests.fixtures.traffic import Traffic

IDS, ANSWERS = local_ids()
WRITE = Writer(IDS)
PLACED = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z
TOPICS = ("orders", "payments")

ORDER: dict[str, Any] = {
    "event_id": "e-1",
    "order_id": "o-1",
    "version": 1,
    "status": "PLACED",
    "customer_id": "c-1",
    "currency": "EUR",
    "amount": money(1_000_000),
    "discount": money(100_000),
    "items": [{"sku": "s", "quantity": 2, "unit_price": money(123_400)}],
    "placed_at": PLACED,
    "occurred_at": PLACED + 1,
}
PAYMENT: dict[str, Any] = {
    "event_id": "e-2",
    "payment_id": "p-1",
    "order_id": "o-1",
    "version": 1,
    "status": "CAPTURED",
    "currency": "EUR",
    "amount": money(400_000),
    "refunded_amount": money(0),
    "method": "card",
    "occurred_at": PLACED + 2,
}


def find_schema(schema_id: int) -> WriterSchema | None:
    return WriterSchema(*ANSWERS[schema_id]) if schema_id in ANSWERS else None


class Log:
    """A log under construction: each record takes the next offset of its partition."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = b"o-1",
        partition: int = 0,
        timestamp_ms: int | None = None,
    ) -> Log:
        before = [r for r in self.records if (r.topic, r.partition) == (topic, partition)]
        self.records.append(
            Record(
                topic=topic,
                partition=partition,
                offset=len(before),
                timestamp_ms=1_000 + len(self.records) if timestamp_ms is None else timestamp_ms,
                key=key,
                value=value,
            )
        )
        return self

    def order(self, *, at: int = 0, ms: int | None = None, **changes: Any) -> Log:
        content = ORDER | changes
        key = content["order_id"].encode()
        value = WRITE("orders", content)
        return self.add("orders", value, key=key, partition=at, timestamp_ms=ms)

    def payment(self, *, at: int = 0, **changes: Any) -> Log:
        content = PAYMENT | changes
        key = content["order_id"].encode()
        return self.add("payments", WRITE("payments", content), key=key, partition=at)

    def tombstone(self, order_id: str = "o-1", *, at: int = 0, ms: int | None = None) -> Log:
        return self.add("orders", None, key=order_id.encode(), partition=at, timestamp_ms=ms)

    def expected(self, recorded: Recorded | None = None) -> Expected:
        return expect(self.records, find_schema, recorded=recorded)


def order_row(expected: Expected, order_id: str = "o-1") -> Row:
    return expected.views.orders[order_id,]


def counts(expected: Expected, topic: str = "orders", partition: int = 0) -> dict[str, int]:
    counters = expected.counters[topic, partition]
    names = ("applied", "superseded", "duplicates", "tombstones", "dead", "ambiguous")
    return {name: getattr(counters, name) for name in names if getattr(counters, name)}


def reasons(expected: Expected) -> list[str]:
    return [letter.reason for _, letter in sorted(expected.dead_letters.items())]


def held(expected: Expected) -> Held:
    """A database that holds exactly what is expected."""
    names = ("applied", "superseded", "duplicates", "tombstones", "dead")
    return Held(
        rows={
            view: {k: dict(row) for k, row in rows.items()}
            for view, rows in expected.views.named().items()
        },
        positions={
            at: {"next_offset": end} | {n: getattr(expected.counters[at], n) for n in names}
            for at, end in expected.next_offsets.items()
        },
        dead_letters=[(at, d.reason, "open") for at, d in expected.dead_letters.items()],
    )


def test_an_order_row_holds_every_field_its_payments_and_where_it_came_from() -> None:
    row = order_row(Log().order().payment().expected())
    assert row == {
        "order_id": "o-1",
        "version": 1,
        "event_id": "e-1",
        "status": "PLACED",
        "customer_id": "c-1",
        "currency": "EUR",
        "amount": 1_000_000,
        "discount": 100_000,
        "items": [{"sku": "s", "quantity": 2, "unit_price": "12.3400"}],
        "placed_at": PLACED,
        "updated_at": PLACED + 1,
        "paid": 400_000,
        "refunded": 0,
        "outstanding": 500_000,
        "payment_count": 1,
        "mismatched_payment_count": 0,
        "visible": True,
        "source_topic": "orders",
        "source_partition": 0,
        "source_offset": 0,
        "source_schema_id": IDS.orders,
        "source_recorded_at": 1_000_000,
    }


def test_a_payment_row_holds_every_field_and_where_it_came_from() -> None:
    row = Log().payment().expected().views.payments["o-1", "p-1"]
    assert row == {
        "order_id": "o-1",
        "payment_id": "p-1",
        "version": 1,
        "event_id": "e-2",
        "status": "CAPTURED",
        "currency": "EUR",
        "amount": 400_000,
        "refunded_amount": 0,
        "method": "card",
        "occurred_at": PLACED + 2,
        "source_topic": "payments",
        "source_partition": 0,
        "source_offset": 0,
        "source_schema_id": IDS.payments,
        "source_recorded_at": 1_000_000,
    }


def test_an_order_known_only_from_payments_is_a_hidden_placeholder() -> None:
    expected = Log().payment().payment(payment_id="p-2", currency="USD").expected()
    row = order_row(expected)
    assert (row["version"], row["visible"], row["payment_count"]) == (0, False, 2)
    assert (row["paid"], row["refunded"], row["outstanding"]) == (0, 0, None)
    assert (row["status"], row["source_offset"], row["mismatched_payment_count"]) == (None, None, 0)
    assert expected.views.customer_totals == {}


def test_a_payment_before_its_order_counts_once_the_order_comes() -> None:
    assert order_row(Log().payment().order().expected())["paid"] == 400_000


def test_events_are_classified_in_offset_order_as_if_each_came_alone() -> None:
    log = Log().order(version=2).order(version=1).order(version=2).order(version=3)
    log.order(version=3, amount=money(1)).order(version=2, amount=money(5))
    expected = log.expected()
    assert counts(expected) == {"applied": 2, "superseded": 2, "duplicates": 1, "dead": 1}
    assert reasons(expected) == ["VERSION_CONFLICT"]
    assert (order_row(expected)["amount"], order_row(expected)["source_offset"]) == (1_000_000, 3)


def test_the_event_id_is_content_and_makes_a_conflict() -> None:
    assert reasons(Log().order().order(event_id="e-9").expected()) == ["VERSION_CONFLICT"]


def test_an_equal_amount_in_longer_bytes_is_a_duplicate() -> None:
    padded = b"\x00" + ORDER["amount"]
    assert counts(Log().order().order(amount=padded).expected())["duplicates"] == 1


def test_payments_of_one_order_have_versions_of_their_own() -> None:
    expected = Log().payment(version=5).payment(payment_id="p-2", version=1).expected()
    assert counts(expected, "payments") == {"applied": 2}


@pytest.mark.parametrize(
    ("status", "paid", "refunded"),
    [
        ("AUTHORIZED", 0, 0),
        ("CAPTURED", 400_000, 50_000),
        ("REFUNDED", 400_000, 50_000),
        ("FAILED", 0, 0),
        ("VOIDED", 0, 0),
        ("UNKNOWN", 0, 0),
    ],
)
def test_only_captured_and_refunded_payments_are_paid(
    status: str, paid: int, refunded: int
) -> None:
    expected = Log().order().payment(status=status, refunded_amount=money(50_000)).expected()
    row = order_row(expected)
    assert (row["paid"], row["refunded"]) == (paid, refunded)
    assert row["outstanding"] == 900_000 - paid + refunded
    assert row["payment_count"] == 1


def test_a_payment_in_another_currency_is_counted_and_not_summed() -> None:
    row = order_row(Log().order().payment(currency="USD").expected())
    assert (row["paid"], row["payment_count"], row["mismatched_payment_count"]) == (0, 1, 1)


def test_a_cancelled_order_owes_only_what_was_paid() -> None:
    expected = Log().order(status="CANCELLED").payment().expected()
    assert order_row(expected)["outstanding"] == -400_000
    assert expected.views.customer_totals["c-1", "EUR"] == {
        "customer_id": "c-1",
        "currency": "EUR",
        "order_count": 1,
        "cancelled_count": 1,
        "ordered": 0,
        "paid": 400_000,
        "refunded": 0,
        "outstanding": -400_000,
    }


def test_aggregates_sum_visible_orders_by_customer_and_by_utc_day() -> None:
    log = Log().order().payment().order(order_id="o-2", placed_at=PLACED - 1, discount=None)
    log.order(order_id="o-3", currency="USD").order(order_id="o-4").tombstone("o-4")
    views = log.expected().views
    totals = {
        key: (row["order_count"], row["ordered"]) for key, row in views.customer_totals.items()
    }
    assert totals == {("c-1", "EUR"): (2, 1_900_000), ("c-1", "USD"): (1, 900_000)}
    days = {key: row["outstanding"] for key, row in views.daily_sales.items()}
    assert days == {
        ("2025-01-01", "EUR"): 500_000,
        ("2024-12-31", "EUR"): 1_000_000,
        ("2025-01-01", "USD"): 900_000,
    }


def test_a_group_without_visible_orders_does_not_exist() -> None:
    views = Log().order().payment().tombstone().expected().views
    assert (views.customer_totals, views.daily_sales) == ({}, {})
    assert order_row(Log().order().payment().tombstone().expected())["paid"] == 400_000


@pytest.mark.parametrize("micros", [-62_135_596_800_000_000, 253_402_300_799_999_999])
def test_the_first_and_the_last_moment_of_the_calendar_have_a_day(micros: int) -> None:
    days = {day for day, _ in Log().order(placed_at=micros).expected().views.daily_sales}
    assert days == {"0001-01-01" if micros < 0 else "9999-12-31"}


def test_a_tombstone_hides_its_order_until_a_higher_version_comes() -> None:
    log = Log().order().tombstone().order().order(version=1)
    assert order_row(log.expected())["visible"] is False
    assert counts(log.expected()) == {"applied": 1, "duplicates": 2, "tombstones": 1}
    assert order_row(log.order(version=2).expected())["visible"] is True


def test_a_tombstone_for_an_order_never_seen_is_nothing_but_counted() -> None:
    expected = Log().tombstone().expected()
    assert (expected.views.orders, counts(expected)) == ({}, {"tombstones": 1})
    assert expected.views.optional_orders == {"o-1"}


def test_an_event_behind_a_tombstone_of_its_partition_is_visible_whatever_its_time() -> None:
    assert order_row(Log().tombstone(ms=9_000).order(ms=1).expected())["visible"] is True


@pytest.mark.parametrize(("removed_ms", "visible"), [(4_999, True), (5_000, False), (6_000, False)])
def test_a_tombstone_of_another_partition_hides_events_that_are_not_later(
    removed_ms: int, visible: bool
) -> None:
    one = Log().order(ms=5_000).tombstone(at=1, ms=removed_ms)
    other = Log().tombstone(at=1, ms=removed_ms).order(ms=5_000)
    assert order_row(one.expected())["visible"] is visible
    assert order_row(other.expected())["visible"] is visible


def test_of_two_tombstones_in_a_partition_the_latest_offset_decides() -> None:
    log = Log().order(ms=5_000).tombstone(at=1, ms=9_000).tombstone(at=1, ms=4_000)
    assert order_row(log.expected())["visible"] is True


def test_a_key_that_moved_keeps_an_exact_row_and_bounded_counts() -> None:
    expected = Log().order(version=1).order(version=2, at=1).order(version=3).expected()
    row = order_row(expected)
    assert (row["version"], row["source_partition"], row["source_offset"]) == (3, 0, 1)
    assert counts(expected, partition=1) == {"applied": 1, "ambiguous": 1}
    database = held(expected)
    database.positions["orders", 1] |= {"applied": 0, "superseded": 1}
    assert differences(database, expected) == []
    database.positions["orders", 1]["superseded"] = 0
    assert [d.said for d in differences(database, expected)] == [
        "0 events are accounted for, the log has 1"
    ]


def test_a_key_that_moved_within_one_version_leaves_only_its_source_open() -> None:
    row = order_row(Log().order().order(at=1).expected())
    assert (row["source_partition"], row["amount"]) == (OPEN, 1_000_000)


def test_an_unknown_symbol_of_a_newer_writer_becomes_unknown() -> None:
    newer = ORDER | {"status": "RETURNED", "channel": "web", "priority": 1}
    expected = Log().add("orders", WRITE("orders_evolved", newer)).expected()
    row = order_row(expected)
    assert (row["status"], row["amount"], row["outstanding"]) == ("UNKNOWN", 1_000_000, 900_000)


def test_fields_of_a_newer_writer_are_skipped_and_symbols_keep_their_names() -> None:
    newer = PAYMENT | {"status": "VOIDED", "note": "by hand", "priority": 7}
    expected = Log().add("payments", WRITE("payments_evolved", newer)).expected()
    assert expected.views.payments["o-1", "p-1"]["status"] == "VOIDED"


def test_fields_missing_at_an_older_writer_take_their_defaults() -> None:
    schema = schemas()["payments"][0]
    fields = [f for f in schema["fields"] if f["name"] != "refunded_amount"]
    older = WriterSchema(json.dumps(schema | {"fields": fields}))
    body = WRITE("payments", PAYMENT)
    # refunded_amount is zero: a length of one and a zero byte, before the method.
    body = body.replace(b"\x02\x00\x08card", b"\x08card")
    log = Log().add("payments", body)
    row = expect(log.records, lambda _: older).views.payments["o-1", "p-1"]
    assert (row["refunded_amount"], row["method"]) == (0, "card")


_WRONG = {
    "empty": "EMPTY",
    "empty_payment": "EMPTY",
    "short_header": "TRUNCATED",
    "no_body": "TRUNCATED",
    "wrong_magic": "BAD_MAGIC",
    "json_text": "BAD_MAGIC",
    "random_bytes": "BROKEN_BODY",
    "truncated": "TRUNCATED",
    "truncated_payment": "TRUNCATED",
    "trailing": "TRAILING_BYTES",
    "trailing_twice": "TRAILING_BYTES",
    "null_bomb": "OVER_LIMIT",
    "many_items": "OVER_LIMIT",
    "overlong_varint": "MALFORMED",
    "huge_length": "TRUNCATED",
    "negative_length": "MALFORMED",
    "bad_utf8": "MALFORMED",
    "enum_index": "MALFORMED",
    "union_index": "MALFORMED",
    "unknown_schema": "UNKNOWN_SCHEMA",
    "other_topic": "INCOMPATIBLE_SCHEMA",
    "other_scale": "INCOMPATIBLE_SCHEMA",
    "other_unit": "INCOMPATIBLE_SCHEMA",
    "nan": "INCOMPATIBLE_SCHEMA",
    "no_avro_schema": "INCOMPATIBLE_SCHEMA",
    "decimal_overflow": "DECIMAL_OVERFLOW",
    "decimal_overflow_far": "DECIMAL_OVERFLOW",
    "decimal_overflow_item": "DECIMAL_OVERFLOW",
    "last_long": "BAD_TIMESTAMP",
    "first_long": "BAD_TIMESTAMP",
    "year_0": "BAD_TIMESTAMP",
    "year_10000": "BAD_TIMESTAMP",
    "nul_in_text": "NUL_IN_TEXT",
    "nul_in_sku": "NUL_IN_TEXT",
    "nul_in_method": "NUL_IN_TEXT",
    "nul_in_key": "NUL_IN_TEXT",
    "null_key": "NULL_KEY",
    "null_key_and_value": "NULL_KEY",
    "key_not_utf8": "KEY_NOT_UTF8",
    "key_mismatch": "KEY_MISMATCH",
    "big_key": "KEY_TOO_LONG",
    "long_payment_id": "KEY_TOO_LONG",
    "null_payment": "NULL_VALUE",
    "version_0": "BAD_VERSION",
    "version_negative": "BAD_VERSION",
    "small_currency": "BAD_CURRENCY",
    "long_currency": "BAD_CURRENCY",
    "line_in_currency": "BAD_CURRENCY",
    "foreign_currency": "BAD_CURRENCY",
}
_BROKEN_BODY = {"TRUNCATED", "TRAILING_BYTES", "MALFORMED", "OVER_LIMIT"}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_of_poison_has_its_reason_and_no_row(shape: str) -> None:
    traffic = Traffic(seed=3, orders=6, ids=IDS, poison=0.5, shapes=(shape,))
    log = Log()
    made = 0
    for record in traffic:
        if record.kind == f"poison:{shape}":
            made += 1
            log.add(record.topic, record.value, key=record.key)
    assert made > 5
    expected = log.expected()
    must = _BROKEN_BODY if _WRONG[shape] == "BROKEN_BODY" else {_WRONG[shape]}
    assert len(reasons(expected)) == made
    assert set(reasons(expected)) <= must
    assert (expected.views.orders, expected.views.payments) == ({}, {})


def test_a_body_cut_at_any_byte_is_truncated() -> None:
    whole = WRITE("orders", ORDER)
    log = Log()
    for end in range(1, len(whole)):
        log.add("orders", whole[:end])
    assert set(reasons(log.expected())) == {"TRUNCATED"}


@pytest.mark.parametrize(
    ("changes", "key", "reason"),
    [
        ({"version": 0, "currency": "eur"}, b"other", "KEY_MISMATCH"),
        ({"version": 0, "currency": "eur"}, b"o-1", "BAD_VERSION"),
        ({"currency": "eur", "customer_id": "\x00"}, b"o-1", "BAD_CURRENCY"),
        ({"customer_id": "\x00" * 1_025}, b"o-1", "NUL_IN_TEXT"),
        ({"customer_id": "c" * 1_025, "amount": money(10**18)}, b"o-1", "KEY_TOO_LONG"),
        ({"amount": money(10**18), "placed_at": 2**62}, b"o-1", "DECIMAL_OVERFLOW"),
        ({"placed_at": 2**62}, b"o-1", "BAD_TIMESTAMP"),
    ],
)
def test_a_record_wrong_in_two_ways_has_the_first_reason(
    changes: dict[str, Any], key: bytes, reason: str
) -> None:
    log = Log().order().add("orders", WRITE("orders", ORDER | changes), key=key)
    assert reasons(log.expected()) == [reason]


@pytest.mark.parametrize("minor", [10**18 - 1, -(10**18) + 1, 0, -1])
def test_every_amount_of_18_digits_is_kept_to_the_last_one(minor: int) -> None:
    assert order_row(Log().order(amount=money(minor)).expected())["amount"] == minor


def test_texts_at_their_limit_are_kept() -> None:
    order_id = "ü" * 1_024
    assert reasons(Log().order(order_id=order_id).expected()) == []


@pytest.mark.parametrize(
    ("raw", "value"),
    [(b"\x01", -1), (b"\x80\x01", 64), (b"\x80\x00", 0), (b"\xff" * 9 + b"\x01", -(2**63))],
)
def test_a_varint_is_read_as_the_specification_says(raw: bytes, value: int) -> None:
    assert read_long(raw, 0) == (value, len(raw))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\xff" * 10 + b"\x01", "MALFORMED"),
        (b"\xff" * 9 + b"\x02", "MALFORMED"),
        (b"\xff", "TRUNCATED"),
        (b"", "TRUNCATED"),
    ],
)
def test_a_varint_beyond_64_bits_or_cut_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(BrokenError) as broken:
        read_long(raw, 0)
    assert broken.value.reason == reason


def test_an_int_beyond_32_bits_is_refused() -> None:
    with pytest.raises(BrokenError):
        read_int(b"\xff\xff\xff\xff\x1f", 0)


def test_records_out_of_offset_order_are_refused() -> None:
    log = Log().order().order(version=2)
    with pytest.raises(ValueError, match="comes after a later offset"):
        expect(reversed(log.records), find_schema)


def test_a_dead_letter_that_todays_registry_can_read_goes_by_its_state() -> None:
    log = Log().order().order(version=2, amount=money(7))
    at = ("orders", 0, 1)
    for state, amount in (("open", 1_000_000), ("discarded", 1_000_000), ("redriven", 7)):
        expected = log.expected({at: ("UNKNOWN_SCHEMA", state)})
        assert order_row(expected)["amount"] == amount
        assert counts(expected) == {"applied": 1, "dead": 1}
        database = held(expected)
        database.dead_letters.append((at, "UNKNOWN_SCHEMA", state))
        assert differences(database, expected) == []


def test_a_good_record_given_up_for_another_reason_is_a_difference() -> None:
    expected = Log().order().expected({("orders", 0, 0): ("MALFORMED", "open")})
    assert counts(expected) == {"applied": 1}
    database = held(expected)
    database.dead_letters.append((("orders", 0, 0), "MALFORMED", "open"))
    assert [d.said for d in differences(database, expected)] == [
        "MALFORMED, open: the record is good"
    ]


def traffic_log(seed: int, *, orders: int = 60) -> Log:
    log = Log()
    for record in Traffic(seed=seed, orders=orders, ids=IDS, poison=0.05, conflicts=0.2):
        log.add(record.topic, record.value, key=record.key, timestamp_ms=record.timestamp_ms)
    return log


def test_a_database_that_holds_what_is_expected_has_no_difference() -> None:
    expected = traffic_log(1).expected()
    assert len(expected.views.orders) > 50
    assert differences(held(expected), expected) == []


def test_every_single_wrong_column_of_every_view_is_found() -> None:
    expected = traffic_log(2, orders=20).expected()
    for view, rows in expected.views.named().items():
        key = next(k for k, row in rows.items() if row.get("version", 1) > 0)
        for column in rows[key]:
            database = held(expected)
            database.rows[view][key][column] = "wrong"
            found = differences(database, expected)
            assert len(found) == 1, (view, column)
            assert column in found[0].said


def test_missing_and_surplus_rows_positions_and_dead_letters_are_found() -> None:
    expected = traffic_log(4, orders=20).expected()
    for view, rows in expected.views.named().items():
        database = held(expected)
        gone = next(iter(rows))
        database.rows[view]["surplus", "row"] = database.rows[view].pop(gone)
        said = sorted(d.said for d in differences(database, expected))
        assert said == ["the row is missing", "the row must not exist"]
    database = held(expected)
    del database.positions["orders", 0]
    letter = database.dead_letters.pop()
    database.dead_letters.append(database.dead_letters[0])
    said = [d.said for d in differences(database, expected)]
    assert said[0] == "the row is missing"
    assert said[1] == "recorded twice"
    assert said[2].startswith(f"missing: {letter[1]}")


@pytest.mark.parametrize("name", ["applied", "superseded", "duplicates", "tombstones", "dead"])
def test_every_counter_that_is_off_by_one_is_found(name: str) -> None:
    expected = traffic_log(5, orders=20).expected()
    database = held(expected)
    database.positions["orders", 0][name] += 1
    assert any(name in d.said for d in differences(database, expected))


def test_a_position_that_is_not_the_end_is_found() -> None:
    expected = Log().order().expected()
    database = held(expected)
    database.positions["orders", 0]["next_offset"] = 0
    assert [d.said for d in differences(database, expected)] == ["next_offset is 0, must be 1"]


def test_reasons_of_a_broken_body_are_one_class_and_no_others() -> None:
    expected = Log().add("orders", WRITE("orders", ORDER)[:-1]).expected()
    at = ("orders", 0, 0)
    for reason, same in (("MALFORMED", True), ("OVER_LIMIT", True), ("BAD_MAGIC", False)):
        database = held(expected)
        database.dead_letters[:] = [(at, reason, "open")]
        assert (differences(database, expected) == []) is same


def test_a_difference_names_the_events_behind_the_row() -> None:
    expected = Log().order().order(version=2).tombstone().expected()
    database = held(expected)
    database.rows["orders"]["o-1",]["version"] = 1
    text = str(differences(database, expected)[0])
    assert "version is 1, must be 2" in text
    assert "orders/0@1 o-1 v2 PLACED applied" in text
    assert "orders/0@2 o-1 v0  tombstone" in text


def test_a_placeholder_for_a_removed_order_never_seen_is_allowed_and_no_other_row() -> None:
    expected = Log().tombstone().expected()
    database = held(expected)
    placeholder = dict(order_row(Log().payment().expected())) | {"payment_count": 0}
    database.rows["orders"]["o-1",] = placeholder
    assert differences(database, expected) == []
    placeholder["visible"] = True
    assert [d.said for d in differences(database, expected)] == ["visible is True, must be False"]


def test_the_packages_own_reader_agrees_on_a_sample() -> None:
    assert traffic_log(6, orders=300).expected().crosschecked > 10


def test_a_reading_that_the_package_does_not_share_stops_the_oracle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crosscheck, "_package", lambda writer, value: ({"version": 2}, b""))
    with pytest.raises(DisagreementError):
        Log().order().expected()


def test_the_same_seed_gives_the_same_traffic_and_another_seed_another() -> None:
    def told(seed: int) -> list[Any]:
        return list(Traffic(seed=seed, orders=30, ids=IDS))

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_traffic_holds_every_kind_of_trouble_and_poison_is_never_applied() -> None:
    records = list(Traffic(seed=9, orders=1_500, ids=IDS, poison=0.02))
    kinds = {record.kind for record in records}
    assert {"event", "evolved", "late", "duplicate", "conflict", "tombstone", "recreated"} <= kinds
    assert {"tombstone:unknown", "late:after_tombstone"} <= kinds
    assert {f"poison:{shape}" for shape in SHAPES} <= kinds
    log = [
        Record(
            topic=r.topic,
            partition=0,
            offset=n,
            timestamp_ms=r.timestamp_ms,
            key=r.key,
            value=r.value,
        )
        for n, r in enumerate(records)
    ]
    expected = expect(log, find_schema)
    poisoned = {(r.topic, 0, n) for n, r in enumerate(records) if r.kind.startswith("poison")}
    assert poisoned <= set(expected.dead_letters)
    others = set(expected.dead_letters) - poisoned
    assert {expected.dead_letters[at].reason for at in others} == {"VERSION_CONFLICT"}
