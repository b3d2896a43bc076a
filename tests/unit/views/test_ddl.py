"""The SQL that makes a build, as text."""

import pytest
from sqlalchemy import literal, select

from views import CATALOGUE
from views.ddl import create_indexes, create_tables, fill, grant_reading, people_view, text_of
from views.model import BUILD, Aggregate


def test_every_table_of_a_build_is_made_in_its_schema() -> None:
    made = [statement.split(" (")[0] for statement in create_tables("build_7")]
    assert sorted(made) == sorted(f"CREATE TABLE build_7.{name}" for name in BUILD.tables)


def test_indexes_have_the_same_names_in_every_build() -> None:
    seven, eight = (create_indexes(build) for build in ("build_7", "build_8"))
    assert [statement.replace("build_7", "build_8") for statement in seven] == eight
    assert all(" None " not in statement for statement in seven)


def test_readers_see_the_views_and_the_positions_of_a_build() -> None:
    rights = grant_reading("build_7", [view.name for view in CATALOGUE.views])
    granted = "".join(rights)
    assert "build_7.positions" in granted
    assert "build_7.orders" in granted
    assert "tombstones" not in granted


def test_the_view_for_people_leaves_hidden_rows_and_their_mark_out() -> None:
    (statement, _) = people_view(CATALOGUE.view("orders"), build="build_7")
    columns, _, source = statement.partition(" FROM ")
    assert "visible" not in columns
    assert source == "build_7.orders WHERE visible"


def test_the_view_for_people_shows_only_columns_that_are_there() -> None:
    (statement, _) = people_view(
        CATALOGUE.view("payments"), build="build_7", present={"order_id", "payment_id"}
    )
    assert "SELECT order_id, payment_id FROM build_7.payments" in statement


@pytest.mark.parametrize("aggregate", CATALOGUE.aggregates, ids=lambda a: str(a.name))
def test_a_fill_reads_and_writes_one_build_and_needs_no_values(aggregate: Aggregate) -> None:
    statement = fill(aggregate, "build_7")
    assert statement.startswith("INSERT INTO build_7.")
    assert "FROM build_7.orders" in statement
    assert ":" not in statement.replace("::", "")


def test_text_keeps_a_percent_sign_as_it_is() -> None:
    assert "'50%'" in text_of(select(literal("50%")))
