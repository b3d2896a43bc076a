"""Columns as the API shows them: what it can show without loss, and what SQL makes of them."""

from typing import Any

import pytest
from sqlalchemy import Column, Numeric, Text
from sqlalchemy.types import TypeEngine

from api.chain import cell, chain
from api.declare import Enumeration, ViewField
from api.kinds import DECIMAL, STRING, kind_of


@pytest.mark.parametrize("numeric", [Numeric(38, 2), Numeric(9)])
def test_a_decimal_of_fewer_than_four_decimals_is_shown_with_four(
    numeric: TypeEngine[Any],
) -> None:
    assert kind_of(Column("price", numeric)) is DECIMAL


def test_a_decimal_of_four_decimals_is_shown_as_it_is_stored() -> None:
    kind = kind_of(Column("price", Numeric(18, 4)))
    assert (kind.name, kind.sql_text.format("price")) == ("Decimal", "price")


@pytest.mark.parametrize("numeric", [Numeric(), Numeric(18, 6)])
def test_a_decimal_that_would_lose_digits_is_refused(numeric: TypeEngine[Any]) -> None:
    with pytest.raises(TypeError, match=r"price.*four decimals"):
        kind_of(Column("price", numeric))


@pytest.mark.parametrize("nullable", [False, True])
def test_a_symbol_that_an_enum_does_not_know_is_never_shown_as_null(nullable: bool) -> None:
    symbols = Enumeration("Colour", "A colour.", {"RED": "As blood.", "BLUE": "As the sea."})
    field = ViewField(
        column="colour", kind=STRING, nullable=nullable, doc="Its colour.", enumeration=symbols
    )
    shown = chain(cell(field, "t.colour"))
    assert "WHEN t.colour = 'RED' THEN '\"RED\"'" in shown
    assert ("WHEN t.colour IS NULL THEN 'null'" in shown) is nullable
    assert "coalesce" not in shown
    assert "ELSE" not in shown


def test_texts_are_escaped_by_the_server_and_numbers_are_not() -> None:
    name = ViewField(column="name", kind=kind_of(Column("name", Text)), nullable=False, doc="Name.")
    assert chain(cell(name, "t.name")) == "to_json(t.name)::text"
    price = ViewField(column="price", kind=DECIMAL, nullable=True, doc="Price.")
    assert (
        chain(cell(price, "t.price")) == "coalesce('\"' || round(t.price, 4)::text || '\"', 'null')"
    )
