"""The schema: the committed file, descriptions everywhere, and what no declaration may say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLScalarType,
    is_introspection_type,
    is_specified_scalar_type,
    validate_schema,
)

from api.app import graphql_schema
from api.declare import DeclarationError, Equal, Relation, ViewType
from api.graph import build_schema
from api.schema import TYPES, sdl
from api.types import orders, payments
from views import CATALOGUE

REPOSITORY = Path(__file__).parents[3]
OURS = [
    each
    for each in graphql_schema().type_map.values()
    if not is_introspection_type(each) and not is_specified_scalar_type(each)
]


def test_the_committed_schema_is_what_the_code_makes() -> None:
    committed = (REPOSITORY / "api" / "schema.graphql").read_text()
    assert committed == sdl(), "run `make schema` and commit api/schema.graphql"


def test_the_schema_is_valid_graphql() -> None:
    assert validate_schema(graphql_schema()) == []


def test_every_view_of_the_catalogue_has_a_type() -> None:
    assert [each.view.name for each in TYPES] == [view.name for view in CATALOGUE.views]


def test_every_type_field_argument_and_symbol_is_described() -> None:
    bare = [each.name for each in OURS if not each.description]
    for each in OURS:
        match each:
            case GraphQLObjectType() | GraphQLInterfaceType():
                bare += [f"{each.name}.{n}" for n, f in each.fields.items() if not f.description]
                bare += [
                    f"{each.name}.{name}({argument})"
                    for name, field in each.fields.items()
                    for argument, given in field.args.items()
                    if not given.description
                ]
            case GraphQLInputObjectType():
                bare += [f"{each.name}.{n}" for n, f in each.fields.items() if not f.description]
            case GraphQLEnumType():
                bare += [f"{each.name}.{n}" for n, v in each.values.items() if not v.description]
    assert bare == []


def test_scalars_of_ours_say_where_they_are_specified() -> None:
    scalars = [each for each in OURS if isinstance(each, GraphQLScalarType)]
    assert {each.name for each in scalars} == {
        "BigInt",
        "CurrencyCode",
        "Date",
        "DateTime",
        "Decimal",
    }
    assert all(each.specified_by_url for each in scalars)


@pytest.mark.parametrize("view_type", [orders.TYPE, payments.TYPE])
def test_enums_have_the_symbols_of_the_contract(view_type: ViewType) -> None:
    contract = json.loads((REPOSITORY / "schemas" / f"{view_type.view.name}.avsc").read_text())
    fields = {each["name"]: each["type"] for each in contract["fields"]}
    assert list(view_type.enums["status"].symbols) == fields["status"]["symbols"]


@pytest.mark.parametrize("view_type", [orders.TYPE, payments.TYPE])
def test_only_what_the_contract_lets_be_null_is_nullable(view_type: ViewType) -> None:
    contract = json.loads((REPOSITORY / "schemas" / f"{view_type.view.name}.avsc").read_text())
    nullable = [
        each["name"]
        for each in contract["fields"]
        if isinstance(each["type"], list) and "null" in each["type"]
    ]
    assert list(view_type.nullable) == nullable


@pytest.mark.parametrize("view_type", TYPES)
def test_filters_and_orders_are_columns_that_an_index_begins_with(view_type: ViewType) -> None:
    table = view_type.view.table
    indexes = [list(table.primary_key.columns), *(list(index.columns) for index in table.indexes)]
    first = {columns[0].name for columns in indexes} | set(view_type.key)
    assert set(view_type.filters) | set(view_type.orders) <= first


@pytest.mark.parametrize(
    "wrong",
    [
        {"filters": ("colour",)},
        {"nullable": ("order_id",)},
        {"orders": ("items",)},
        {"relations": (Relation(name="version", target="orders", by=(), doc="x"),)},
    ],
)
def test_a_declaration_that_does_not_fit_its_table_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(DeclarationError, match="Order"):
        replace(orders.TYPE, **wrong)  # type: ignore[arg-type]


def test_a_relation_must_lead_somewhere() -> None:
    lost = Relation(name="invoice", target="invoices", by=(), doc="x", many=False)
    with pytest.raises(DeclarationError, match="invoices"):
        build_schema([replace(payments.TYPE, relations=(lost,))])
    half = Relation(
        name="payment", target="payments", by=(Equal("order_id", "order_id"),), doc="x", many=False
    )
    with pytest.raises(DeclarationError, match="key"):
        build_schema([payments.TYPE, replace(orders.TYPE, relations=(half,))])
