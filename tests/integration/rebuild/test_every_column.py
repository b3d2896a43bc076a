"""Whatever is changed in any column of any view is found, shown, and cured from the log."""

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import JSON, TIMESTAMP, Boolean, Column, Date, Integer, Numeric, Text
from typer.testing import CliRunner, Result

from cli.main import app
from rebuild import compare, run
from rebuild.pace import Pacer
from rebuild.report import Options
from tests.fixtures.databases import Database, DatabaseServer
from tests.integration.rebuild.parts import Log, Watcher, execute, live, value
from views import CATALOGUE
from views.model import View

Row = tuple[Any, ...]
RANGE = 60
"""Rows that are hashed together: few, so that a table has several ranges."""


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are compared in ranges of a few rows."""
    monkeypatch.setattr(compare, "FETCH_ROWS", RANGE)


def unhurried() -> Pacer:
    """Nobody else is at work."""
    return Pacer(threading.Event())


def changed(column: Column[Any]) -> str:
    """A small change of a value of a column's type, as SQL."""
    match column.type:
        case Numeric():
            return f"{column.name} + 0.01"
        case Integer():
            return f"{column.name} + 1"
        case Boolean():
            return f"NOT {column.name}"
        case TIMESTAMP():
            return f"{column.name} + interval '1 microsecond'"
        case Date():
            return f"{column.name} + 36500"  # a day that no row has
        case JSON():
            return f"json_build_array({column.name})"
        case Text():
            return f"{column.name} || 'x'"
        case _:
            raise AssertionError(f"no change is known for {column.type!r}")


def every_column() -> list[Any]:
    return [
        pytest.param(view, column, id=f"{view.name}.{column.name}")
        for view in CATALOGUE.views
        for column in view.table.columns
    ]


def first_row(view: View, column: Column[Any]) -> str:
    """The condition on one row of a view that has a value there."""
    shown = " AND visible" if "visible" in view.table.columns else ""
    keys = ", ".join(view.key)
    return (
        f"({keys}) = (SELECT {keys} FROM build_1.{view.name} WHERE {column.name} IS NOT NULL"
        f"{shown} ORDER BY {keys} LIMIT 1)"
    )


@pytest.fixture(scope="module")
def proved(log: Log, read: Database, database_server: DatabaseServer) -> Iterator[Database]:
    """A database with a second build that was proved equal to the live one."""

    database = database_server.create(template=read.name)
    report = run.rebuild(log.settings(database), Options(swap=False), Watcher(), threading.Event())
    assert report.ok
    yield database
    database_server.drop(database)


@pytest.fixture(scope="module")
def built(proved: Database) -> Iterator[psycopg.Connection[Row]]:
    """A session that sees the proved build."""
    with psycopg.connect(proved.dsn) as connection:
        yield connection


@pytest.fixture
def tampering(proved: Database) -> Iterator[psycopg.Connection[Row]]:
    """A session whose changes of the live build nobody else ever sees."""
    with psycopg.connect(proved.dsn) as connection:
        yield connection
        connection.rollback()


def found(
    tampering: psycopg.Connection[Row], built: psycopg.Connection[Row]
) -> list[compare.Difference]:
    return compare.compare((tampering, "build_1"), (built, "build_2"), pacer=unhurried).first


@pytest.mark.parametrize(("view", "column"), every_column())
def test_a_change_in_any_column_is_shown_with_both_values(
    view: View,
    column: Column[Any],
    tampering: psycopg.Connection[Row],
    built: psycopg.Connection[Row],
) -> None:
    table = f"build_1.{view.name}"
    if column.computed is not None:
        tampering.execute(f"ALTER TABLE {table} ALTER {column.name} DROP EXPRESSION".encode())
    done = tampering.execute(
        f"UPDATE {table} SET {column.name} = {changed(column)} WHERE"
        f" {first_row(view, column)}".encode()
    )
    assert done.rowcount == 1
    differences = found(tampering, built)
    assert {difference.view for difference in differences} == {view.name}
    if column.name in view.key:
        assert sorted(d.kind for d in differences) == ["missing", "too many"]
        return
    (shown,) = differences
    assert shown.kind == "different"
    assert column.name in shown.columns
    computed = {c.name for c in view.table.columns if c.computed is not None}
    assert set(shown.columns) <= {column.name} | computed
    assert shown.live is not None
    assert shown.built is not None
    assert shown.live[column.name] != shown.built[column.name]


@pytest.mark.parametrize("view", CATALOGUE.views, ids=lambda view: view.name)
def test_a_missing_row_and_one_too_many_are_shown(
    view: View, tampering: psycopg.Connection[Row], built: psycopg.Connection[Row]
) -> None:
    table, key = f"build_1.{view.name}", view.table.c[view.key[0]]
    names = ", ".join(c.name for c in view.table.columns if c.computed is None)
    values = names.replace(key.name, changed(key), 1)
    one = first_row(view, key)
    tampering.execute(f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} WHERE {one}")
    (more,) = found(tampering, built)
    assert (more.view, more.kind, more.built) == (view.name, "too many", None)
    tampering.rollback()
    tampering.execute(f"DELETE FROM {table} WHERE {one}".encode())
    (less,) = found(tampering, built)
    assert (less.view, less.kind, less.live) == (view.name, "missing", None)


@pytest.mark.parametrize("at", [1, RANGE - 1, RANGE, RANGE + 1, 2 * RANGE, -1])
def test_no_row_falls_between_two_ranges(
    at: int, tampering: psycopg.Connection[Row], built: psycopg.Connection[Row]
) -> None:
    rows = tampering.execute("SELECT order_id FROM build_1.orders ORDER BY order_id").fetchall()
    order_id = rows[at - 1 if at > 0 else at][0]
    gone = tampering.execute("DELETE FROM build_1.orders WHERE order_id = %s", (order_id,))
    assert gone.rowcount == 1
    (missing,) = found(tampering, built)
    assert (missing.view, missing.kind, missing.key) == ("orders", "missing", (order_id,))
    result = compare.compare((tampering, "build_1"), (built, "build_2"), pacer=unhurried)
    assert next(view.rows for view in result.views if view.view == "orders") == len(rows)


def command(log: Log, database: Database, *arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, list(arguments), env=dict(log.environment(database)))
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done


def verdict(log: Log, database: Database, *, code: int) -> Mapping[str, Any]:
    """What `viewkeeper verify --json` answers, by view."""
    asked = ("verify", "--json", "--metrics", "verify.prom")
    report = json.loads(command(log, database, *asked, code=code).stdout)
    assert report["equal"] is (code == 0)
    assert f"viewkeeper_verify_equal {1 - code}.0\n" in Path("verify.prom").read_text()
    return {view["view"]: view for view in report["views"]}


def test_one_order_with_everything_wrong_is_shown_and_mended_alone(
    log: Log, shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    order_id, customer, currency, day = _an_order(shop)
    of_order = f"WHERE order_id = '{order_id}'"
    groups = {
        "customer_totals": f"WHERE (customer_id, currency) = ('{customer}', '{currency}')",
        "daily_sales": f"WHERE (day, currency) = ('{day}', '{currency}')",
    }
    execute(
        shop,
        *(
            f"UPDATE build_1.{view.name} SET {_all_changed(view)} {groups.get(view.name, of_order)}"
            for view in CATALOGUE.views
        ),
    )
    views = verdict(log, shop, code=1)
    for view in CATALOGUE.views:
        wrong = set(views[view.name]["columns"])
        assert wrong >= {c.name for c in _own_columns(view)}, view.name
    mended = command(log, shop, "rebuild", "--order", order_id).stdout
    assert "rows mended" in mended
    verdict(log, shop, code=0)
    assert log.judge(shop, "build_1") == []


def test_an_order_that_is_missing_and_one_that_never_was_are_mended_alone(
    log: Log, shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    order_id, customer, *_ = _an_order(shop)
    names = ", ".join(c.name for c in CATALOGUE.view("orders").table.columns if c.computed is None)
    invented = names.replace("order_id", "'invented'", 1)
    execute(
        shop,
        f"INSERT INTO build_1.orders ({names}) SELECT {invented} FROM build_1.orders"
        f" WHERE order_id = '{order_id}'",
        f"DELETE FROM build_1.orders WHERE order_id = '{order_id}'",
        f"DELETE FROM build_1.customer_totals WHERE customer_id = '{customer}'",
    )
    views = verdict(log, shop, code=1)
    assert (views["orders"]["missing"], views["orders"]["too_many"]) == (1, 1)
    assert views["customer_totals"]["missing"] >= 1
    command(log, shop, "rebuild", "--order", "invented")
    command(log, shop, "rebuild", "--customer", str(customer))
    verdict(log, shop, code=0)
    assert live(shop) == "build_1"
    assert log.judge(shop, "build_1") == []


def _an_order(shop: Database) -> tuple[Any, ...]:
    """A visible order with a payment that counts: its id, customer, currency and day."""
    one = (
        "SELECT order_id FROM build_1.orders WHERE visible AND paid > 0 AND discount > 0"
        " ORDER BY 1 LIMIT 1"
    )
    names = ("order_id", "customer_id", "currency", "(placed_at AT TIME ZONE 'UTC')::date::text")
    return tuple(
        value(shop, f"SELECT {name} FROM build_1.orders WHERE order_id = ({one})") for name in names
    )


def _own_columns(view: View) -> list[Column[Any]]:
    return [c for c in view.table.columns if c.name not in view.key and c.computed is None]


def _all_changed(view: View) -> str:
    return ", ".join(f"{column.name} = {changed(column)}" for column in _own_columns(view))
