"""`verify` proves that the live views are what the log adds up to, and shows where they are not."""

import threading
from typing import Any

import psycopg
import pytest

from ingest.errors import RefusedError, TransientError
from rebuild import builds as open_sessions
from rebuild import run, turn
from rebuild.builder import Builder
from rebuild.report import Options
from tests.fixtures.databases import Database
from tests.integration.rebuild.parts import (
    Interrupting,
    Log,
    Watcher,
    builds,
    execute,
    live,
    offsets,
    schemas,
    value,
    worker,
)
from views import CATALOGUE


def test_sound_views_are_proved_and_nothing_stays_behind(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    before = builds(shop)
    report = run.verify(log.settings(shop), Options(), watcher, threading.Event())
    assert report.result is not None
    assert report.ok
    assert report.result.notes == []
    counted = {view.view: view.rows for view in report.result.views}
    for view in CATALOGUE.views:
        assert counted[view.name] == value(shop, f"SELECT count(*) FROM build_1.{view.name}") > 0
    assert counted["tombstones"] > 0
    assert counted["positions"] == 6
    assert (builds(shop), schemas(shop)) == (before, {"build_1"})
    assert watcher.told[-1][0] == watcher.told[-1][1] == report.events


def test_it_needs_no_pause_of_ingest(log: Log, shop: Database, watcher: Watcher) -> None:
    settings = log.settings(shop)
    with worker(settings):
        producer = threading.Thread(target=log.produce, kwargs={"seed": 12, "orders": 100})
        producer.start()
        report = run.verify(settings, Options(), watcher, threading.Event())
        producer.join()
    assert report.ok, report.result


TAMPERED = {
    "a cent in an order": (
        "UPDATE build_1.orders SET amount = amount + 0.01 WHERE order_id ="
        " (SELECT min(order_id) FROM build_1.orders WHERE visible AND status <> 'CANCELLED')",
        ("orders", "different", {"amount", "outstanding"}),
    ),
    "a cent in a payment": (
        "UPDATE build_1.payments SET refunded_amount = refunded_amount + 0.01 WHERE (order_id,"
        " payment_id) = (SELECT order_id, payment_id FROM build_1.payments ORDER BY 1, 2 LIMIT 1)",
        ("payments", "different", {"refunded_amount"}),
    ),
    "a cent in a total": (
        "UPDATE build_1.customer_totals SET paid = paid + 0.01 WHERE (customer_id, currency) ="
        " (SELECT customer_id, currency FROM build_1.customer_totals ORDER BY 1, 2 LIMIT 1)",
        ("customer_totals", "different", {"paid"}),
    ),
    "a sale too many": (
        "INSERT INTO build_1.daily_sales SELECT DATE '1999-12-31', currency, order_count,"
        " cancelled_count, ordered, paid, refunded, outstanding FROM build_1.daily_sales LIMIT 1",
        ("daily_sales", "too many", set()),
    ),
    "a payment missing": (
        "DELETE FROM build_1.payments WHERE (order_id, payment_id) ="
        " (SELECT order_id, payment_id FROM build_1.payments ORDER BY 1 DESC, 2 LIMIT 1)",
        ("payments", "missing", set()),
    ),
    "a hidden row shown": (
        "UPDATE build_1.orders SET visible = true WHERE order_id ="
        " (SELECT min(order_id) FROM build_1.orders WHERE NOT visible)",
        ("orders", "different", {"visible"}),
    ),
    "a tombstone forgotten": (
        "DELETE FROM build_1.tombstones WHERE key = (SELECT min(key) FROM build_1.tombstones)",
        ("tombstones", "missing", set()),
    ),
    "a counter": (
        "UPDATE build_1.positions SET applied = applied + 1"
        " WHERE topic = 'orders' AND partition = 1",
        ("positions", "different", {"applied"}),
    ),
}


def test_whatever_was_changed_is_shown_and_cured_by_a_rebuild(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    execute(shop, *(statement for statement, _ in TAMPERED.values()))
    settings, stop = log.settings(shop), threading.Event()
    report = run.verify(settings, Options(), watcher, stop)
    assert not report.ok
    assert report.result is not None
    shown = [(d.view, d.kind, set(d.columns)) for d in report.result.first]
    for name, (_, expected) in TAMPERED.items():
        assert expected in shown, name
    assert len(shown) == len(TAMPERED)
    assert builds(shop) == {"build_1": "live"}

    stopped = run.rebuild(settings, Options(), watcher, stop)
    assert (stopped.ok, stopped.swapped) == (False, None)
    assert live(shop) == "build_1"
    cured = run.rebuild(settings, Options(accept_differences=True), watcher, stop)
    assert cured.resumed
    assert live(shop) == cured.build == stopped.build
    assert run.verify(settings, Options(), watcher, stop).ok
    assert log.judge(shop, cured.build) == []


def test_a_declared_difference_is_reported_and_does_not_fail(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    execute(shop, "UPDATE build_1.payments SET method = 'by hand'")
    options = Options(declared=run.declared(["payments.method"]))
    report = run.verify(log.settings(shop), options, watcher, threading.Event())
    assert report.ok
    assert report.result is not None
    declared = {view.view: dict(view.declared) for view in report.result.views}
    assert declared["payments"] == {"method": value(shop, "SELECT count(*) FROM build_1.payments")}
    execute(
        shop,
        "UPDATE build_1.payments SET amount = amount + 0.01 WHERE (order_id, payment_id) ="
        " (SELECT order_id, payment_id FROM build_1.payments LIMIT 1)",
    )
    report = run.verify(log.settings(shop), options, watcher, threading.Event())
    assert report.result is not None
    columns = {view.view: dict(view.columns) for view in report.result.views}
    assert columns["payments"] == {"amount": 1}, "a row's other columns are not declared"
    assert not report.ok
    with pytest.raises(ValueError, match=r"payments\.colour"):
        run.declared(["payments.colour"])


def test_a_declared_view_may_differ_in_anything(log: Log, shop: Database, watcher: Watcher) -> None:
    days = value(shop, "SELECT count(*) FROM build_1.daily_sales")
    execute(shop, "DELETE FROM build_1.daily_sales")
    options = Options(declared=run.declared(["daily_sales"]))
    report = run.verify(log.settings(shop), options, watcher, threading.Event())
    assert report.ok
    assert report.result is not None
    assert report.result.first == []
    assert {view.view: view.missing for view in report.result.views}["daily_sales"] == days


def test_a_view_that_the_live_build_does_not_hold_is_filled_and_compared_with_nothing(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    # As a migration leaves it, with a new table for events that were read before.
    execute(
        shop,
        "DELETE FROM build_1.payments",
        "DELETE FROM ingest.build_views WHERE view = 'payments'",
    )
    report = run.rebuild(log.settings(shop), Options(), watcher, threading.Event())
    assert report.ok
    assert report.swapped is not None
    assert any(note.startswith("payments is new: build_1 does not hold") for note in report.notes)
    assert log.judge(shop, report.build) == []
    assert run.verify(log.settings(shop), Options(), watcher, threading.Event()).notes == []


def test_a_second_one_is_told_who_is_at_it(log: Log, shop: Database, watcher: Watcher) -> None:
    settings = log.settings(shop)
    with (
        turn.held(shop.dsn, "rebuild"),
        pytest.raises(RefusedError, match=r"another one is running: rebuild .+/\d+"),
    ):
        run.verify(settings, Options(), watcher, threading.Event())
    assert run.verify(settings, Options(), watcher, threading.Event()).ok


def test_too_little_room_is_said_before_anything_is_made(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    with pytest.raises(RefusedError, match=r"needs about .+ GB"):
        run.rebuild(log.settings(shop), Options(free_bytes=1_000), watcher, threading.Event())
    assert schemas(shop) == {"build_1"}


def test_an_unsafe_database_is_refused(log: Log, shop: Database, watcher: Watcher) -> None:
    execute(shop, f"ALTER DATABASE {shop.name} SET synchronous_commit = off")
    with pytest.raises(RefusedError, match="synchronous_commit=off"):
        run.rebuild(log.settings(shop), Options(), watcher, threading.Event())


def test_a_database_at_another_migration_is_refused_before_anything_is_made(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    execute(shop, "ALTER TABLE build_1.tombstones ADD COLUMN newer integer")
    with pytest.raises(RefusedError, match=r"build_1 has tombstones\.newer, which this code does"):
        run.rebuild(settings, Options(), watcher, stop)
    assert run.verify(settings, Options(), watcher, stop).ok  # what it makes is not kept
    execute(shop, "ALTER TABLE build_1.positions DROP COLUMN leader_epoch")
    for command in (run.rebuild, run.verify):
        with pytest.raises(RefusedError, match=r"no positions\.leader_epoch.*alembic upgrade head"):
            command(settings, Options(), watcher, stop)
    assert schemas(shop) == {"build_1"}


def test_a_build_that_a_backup_reads_is_left_to_the_next_call(
    log: Log, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    monkeypatch.setattr(open_sessions, "LOCK_WAIT_S", 1)
    with psycopg.connect(shop.dsn) as backup:

        def read() -> None:
            backup.execute("SELECT count(*) FROM build_2.orders")

        watcher = Interrupting(at="comparing", call=read)
        report = run.verify(settings, Options(), watcher, stop)
    assert watcher.called == 1
    assert report.ok
    assert report.notes == ["build_2 is in use and could not be dropped: the next call drops it"]
    assert run.verify(settings, Options(), watcher, stop).notes == []
    assert schemas(shop) == {"build_1"}


def test_a_throttle_bounds_the_rate(log: Log, shop: Database, watcher: Watcher) -> None:
    events = sum(offsets(shop, "build_1").values())
    options = Options(rate=events / 4)
    report = run.verify(log.settings(shop), options, watcher, threading.Event())
    assert report.ok
    assert report.seconds["bulk"] > 2.5  # four seconds, but for what the first batch brings


def test_a_build_that_does_not_get_to_the_snapshot_is_not_compared(
    log: Log, shop: Database, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_to = Builder.go_to

    def too_late(self: Builder, *arguments: Any, **options: Any) -> bool:
        return options.get("within_s") is None and go_to(self, *arguments, **options)

    monkeypatch.setattr(Builder, "go_to", too_late)
    with pytest.raises(TransientError, match=r"did not come to orders:0:.* within an hour"):
        run.verify(log.settings(shop), Options(), watcher, threading.Event())
    assert not any(line.startswith("comparing") for line in watcher.lines)
