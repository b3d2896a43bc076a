"""What a reader must know of Avro schemas that Avro's own rules leave out."""

import json
from typing import Any

import pytest

from schemas import contracts
from schemas.avro import (
    changed_meanings,
    fingerprint,
    is_recursive,
    leaves_unread,
    logical_conflicts,
    without_logical_types,
    zero_width_items,
)
from views import CATALOGUE

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def of(kind: Any, **more: Any) -> dict[str, Any]:
    fields = [{"name": "a", "type": kind}]
    fields += [{"name": name, "type": type_} for name, type_ in more.items()]
    return {"type": "record", "name": "R", "fields": fields}


CONTRACTS = [contracts.load(stream.contract).schema for stream in CATALOGUE.streams]
NEST = {"type": "record", "name": "Nest", "fields": []}
NEST["fields"] = [{"name": "inner", "type": ["null", "Nest"]}]  # type: ignore[list-item]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_contract_has_no_conflict_with_itself_and_hides_nothing(contract: Any) -> None:
    assert logical_conflicts(contract, contract) == []
    plain = without_logical_types(contract)
    assert "logicalType" not in json.dumps(plain)
    assert not leaves_unread(plain, plain)
    assert not is_recursive(plain)
    assert not zero_width_items(plain)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (DECIMAL | {"scale": 2}, DECIMAL),
        ("bytes", DECIMAL),
        (DECIMAL, "bytes"),
        ("string", DECIMAL),
        ({"type": "long", "logicalType": "timestamp-millis"}, MICROS),
        ("long", MICROS),
        ("int", MICROS),
        ({"type": "int", "logicalType": "date"}, MICROS),
        (["null", DECIMAL | {"scale": 2}], ["null", DECIMAL]),
        (DECIMAL | {"scale": 2}, ["null", DECIMAL]),
        (["null", "string"], ["null", DECIMAL]),
        ({"type": "array", "items": DECIMAL | {"scale": 2}}, {"type": "array", "items": DECIMAL}),
        ({"type": "map", "values": "long"}, {"type": "map", "values": MICROS}),
        (of(DECIMAL | {"scale": 2}), of(DECIMAL)),
    ],
)
def test_the_same_bytes_with_another_meaning_are_a_conflict(written: Any, read: Any) -> None:
    found = logical_conflicts(of(written), of(read))
    assert found
    assert all(text.startswith("value.a") for text in found)


SIZES = {"type": "enum", "name": "Size", "symbols": ["S", "M"], "default": "S"}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (DECIMAL, DECIMAL | {"precision": 9}, "decimal(18,4), read as decimal(9,4)"),
        (DECIMAL, DECIMAL | {"scale": 2}, "decimal(18,4), read as decimal(18,2)"),
        (DECIMAL, "bytes", "decimal(18,4), read as a plain value"),
        (SIZES, SIZES | {"default": "M"}, "enum with default S, read as enum with default M"),
        (["null", SIZES], ["null", SIZES | {"default": "M"}], "read as enum with default M"),
        (MICROS, "long", "timestamp-micros, read as a plain value"),
    ],
)
def test_a_contract_may_not_change_what_its_values_mean(before: Any, after: Any, told: str) -> None:
    (found,) = changed_meanings(of(before), of(after))
    assert found.startswith("value.a: ")
    assert told in found
    assert changed_meanings(of(before), of(before, more="long")) == []


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (DECIMAL | {"precision": 30}, DECIMAL),
        (DECIMAL, ["null", DECIMAL]),
        (["null", DECIMAL], ["null", DECIMAL]),
        ("int", "long"),
        ({"type": "string", "logicalType": "uuid"}, "string"),
        (NEST, NEST),
    ],
)
def test_what_means_the_same_is_none(written: Any, read: Any) -> None:
    assert logical_conflicts(of(written), of(read)) == []


@pytest.mark.parametrize(
    ("written", "read", "unread"),
    [
        (of("long", more="string"), of("long"), True),
        (of("long"), of("long", more="string"), False),
        (of("boolean"), of("boolean"), True),
        (of("int"), of("int"), False),
        (of("int"), of("long"), True),
        (of(["null", "int"]), of(["null", "long"]), True),
        (of({"type": "array", "items": of("long", b="long") | {"name": "I"}}), of("long"), False),
        (
            of({"type": "array", "items": of("long", b="long") | {"name": "I"}}),
            of({"type": "array", "items": of("long") | {"name": "I"}}),
            True,
        ),
    ],
)
def test_what_a_reader_passes_over_is_known(written: Any, read: Any, unread: bool) -> None:
    assert leaves_unread(written, read) is unread


@pytest.mark.parametrize(
    ("schema", "zero_width"),
    [
        ({"type": "array", "items": "null"}, True),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, True),
        ({"type": "array", "items": of("null")}, True),
        ({"type": "array", "items": of("null", b="long")}, False),
        ({"type": "array", "items": ["null"]}, False),
        ({"type": "map", "values": "null"}, False),
        (of({"type": "array", "items": {"type": "array", "items": "null"}}), True),
        (NEST, False),
    ],
)
def test_lists_of_items_without_width_are_found(schema: Any, zero_width: bool) -> None:
    assert zero_width_items(schema) is zero_width


def test_a_record_within_itself_is_found() -> None:
    assert is_recursive(NEST)
    assert is_recursive(of({"type": "array", "items": NEST}))
    assert not is_recursive(of(of("long") | {"name": "Other"}, b="Other"))


def test_a_fingerprint_is_of_the_schema_and_not_of_its_spelling() -> None:
    text = json.dumps(CONTRACTS[0])
    same = json.dumps(json.loads(text), indent=2, sort_keys=True)
    assert fingerprint(text) == fingerprint(same)
    assert fingerprint(text) != fingerprint(json.dumps(CONTRACTS[1]))
    with pytest.raises(ValueError):
        fingerprint("no json")
