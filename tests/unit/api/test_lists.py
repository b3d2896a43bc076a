"""A list is shown alike whether its text has the worker's form or any other."""

import json
from typing import Any, Final

import orjson
import pytest
from sqlalchemy import Boolean, Column, Integer, Numeric, Text

from api.declare import ListOf, ViewField
from api.kinds import LIST
from api.lists import BrokenListError, Listed
from api.tree import Items, TypeName

PARTS: Final = (
    Column("sku", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("unit_price", Numeric(18, 4), nullable=False),
    Column("note", Text, nullable=True),
)
WHOLE: Final = (
    ("sku", "sku"),
    ("quantity", "quantity"),
    ("unitPrice", "unit_price"),
    ("note", "note"),
)
TEA: Final = {"sku": "tea", "quantity": 2, "unit_price": "5.0000", "note": None}


def of(
    *fields: tuple[str, TypeName | str], parts: tuple[Column[Any], ...] = PARTS, null: bool = False
) -> Listed:
    shown = ViewField(
        column="items",
        kind=LIST,
        nullable=null,
        doc="",
        list_of=ListOf(name="Item", doc="", parts=parts),
    )
    return Listed(Items(0, shown, fields or WHOLE))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_workers_form_and_another_spelling_are_shown_alike(count: int) -> None:
    items = [TEA | {"sku": f"tea-{number}"} for number in range(count)]
    shown = [
        {"sku": each["sku"], "quantity": 2, "unitPrice": "5.0000", "note": None} for each in items
    ]
    assert of().shown(orjson.dumps(items)) == orjson.dumps(shown)
    assert of().shown(json.dumps(items, indent=1).encode()) == orjson.dumps(shown)


@pytest.mark.parametrize("odd", [None, 0, 2])
def test_lists_of_many_rows_are_shown_as_each_alone(odd: int | None) -> None:
    rows = [[TEA | {"sku": f"tea-{row}-{number}"} for number in range(row)] for row in range(3)]
    texts = [
        json.dumps(items, indent=1).encode() if row == odd else orjson.dumps(items)
        for row, items in enumerate(rows)
    ]
    assert of().all_shown(texts) == [of().shown(text) for text in texts]
    assert of(("quantity", "quantity")).all_shown(texts) == [
        of(("quantity", "quantity")).shown(text) for text in texts
    ]


@pytest.mark.parametrize("bad", [b"[1]", b"{}", b"[", b"", b"null"])
def test_one_list_among_many_that_has_no_such_form_is_told(bad: bytes) -> None:
    with pytest.raises(BrokenListError):
        of().all_shown([orjson.dumps([TEA]), bad, orjson.dumps([TEA])])


@pytest.mark.parametrize("dumps", [orjson.dumps, lambda value: json.dumps(value).encode()])
@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ((("quantity", "quantity"),), {"quantity": 2}),
        ((("price", "unit_price"), ("sku", "sku")), {"price": "5.0000", "sku": "tea"}),
        ((("a", "sku"), ("b", "sku")), {"a": "tea", "b": "tea"}),
        (
            (
                ("quantity", "sku"),
                ("sku", "quantity"),
                ("note", "unit_price"),
                ("unit_price", "note"),
            ),
            {"quantity": "tea", "sku": 2, "note": "5.0000", "unit_price": None},
        ),
        ((("__typename", TypeName("Item")), ("sku", "sku")), {"__typename": "Item", "sku": "tea"}),
    ],
)
def test_what_is_asked_for_is_shown_in_its_order_under_its_names(
    dumps: Any, fields: tuple[tuple[str, TypeName | str], ...], wanted: dict[str, Any]
) -> None:
    assert of(*fields).shown(dumps([TEA])) == orjson.dumps([wanted])


@pytest.mark.parametrize("sku", ['"unit_price":', "unit_price", '\\"', "\x01", "čaj 🛒", "},{", ""])
def test_no_text_is_taken_for_a_name_or_for_the_end(sku: str) -> None:
    shown = {"sku": sku, "quantity": 2, "unitPrice": "5.0000", "note": sku}
    assert of().shown(orjson.dumps([TEA | {"sku": sku, "note": sku}] * 2)) == orjson.dumps(
        [shown, shown]
    )


@pytest.mark.parametrize("stored", ["5", "5.0", "05.0000", "5.000"])
def test_amounts_show_four_decimals(stored: str) -> None:
    text = orjson.dumps([TEA | {"unit_price": stored}])
    assert of(("unitPrice", "unit_price")).shown(text) == b'[{"unitPrice":"5.0000"}]'


@pytest.mark.parametrize(
    "changed",
    [
        {"sku": None},
        {"sku": 5},
        {"sku": "\x00"},
        {"quantity": "2"},
        {"quantity": 2.0},
        {"quantity": True},
        {"quantity": 2**31},
        {"unit_price": 5},
        {"unit_price": "5.00001"},
        {"unit_price": "five"},
    ],
)
def test_what_its_type_cannot_show_is_broken(changed: dict[str, Any]) -> None:
    with pytest.raises(BrokenListError):
        of(("sku", "sku")).shown(orjson.dumps([TEA, TEA | changed]))


@pytest.mark.parametrize("text", [b"null", b"{}", b"[1]", b"[null]", b'[{"sku":"tea"}]', b'"a"'])
def test_what_is_no_list_of_its_objects_is_broken(text: bytes) -> None:
    with pytest.raises(BrokenListError):
        of().shown(text)


def test_null_is_null_where_it_may_be() -> None:
    assert of(null=True).shown(b"null") == b"null"


def test_a_key_that_is_too_much_is_not_shown() -> None:
    text = orjson.dumps([TEA | {"colour": "green"}])
    assert of(("sku", "sku")).shown(text) == b'[{"sku":"tea"}]'


def test_parts_without_a_pattern_are_shown_too() -> None:
    parts = (Column("gift", Boolean, nullable=False),)
    assert of(("gift", "gift"), parts=parts).shown(b'[{"gift":true}]') == b'[{"gift":true}]'
