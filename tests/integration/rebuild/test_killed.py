"""A rebuild may be killed at any moment: the live views are whole, the next call finishes."""

import random
import threading

import psycopg
import pytest
from confluent_kafka import Producer

from rebuild import bulk, run
from rebuild.builder import StoppedError
from rebuild.builds import APPLICATION, FINISHING
from rebuild.pace import Pacer
from rebuild.report import Options
from tests.fixtures.content import Writer, order_content, payment_content
from tests.fixtures.databases import Database
from tests.integration.rebuild.dying import REBUILD, SHARES
from tests.integration.rebuild.killed import kill
from tests.integration.rebuild.parts import (
    Log,
    Watcher,
    builds,
    content,
    live,
    offsets,
    schemas,
    value,
    wait_until_live_includes,
    worker,
)


def test_killed_again_and_again_it_goes_on_from_where_it_was(log: Log, shop: Database) -> None:
    before, rows = offsets(shop, "build_1"), content(shop, "build_1")
    total = sum(before.values())
    done = 0
    for step in REBUILD:
        kill("rebuild", step, log, shop)
        assert (offsets(shop, "build_1"), content(shop, "build_1")) == (before, rows), step
        if step != "committed":
            assert builds(shop)["build_1"] == "live", step
        assert builds(shop).keys() == {"build_1", "build_2"}, step
        now = sum(offsets(shop, "build_2").values())
        assert now >= max(done, SHARES.get(step, 0.0) * total), step
        assert now < total or step not in SHARES, step
        done = now
    assert builds(shop) == {"build_1": "previous", "build_2": "live"}
    assert log.judge(shop, "build_2") == []


@pytest.mark.proof
@pytest.mark.parametrize("step", REBUILD)
def test_killed_it_leaves_the_live_views_whole_and_the_next_call_finishes(
    step: str, log: Log, shop: Database, watcher: Watcher
) -> None:
    settings = log.settings(shop)
    before, rows = offsets(shop, "build_1"), content(shop, "build_1")
    kill("rebuild", step, log, shop)
    assert (offsets(shop, "build_1"), content(shop, "build_1")) == (before, rows)
    if step == "committed":
        assert builds(shop) == {"build_1": "previous", "build_2": "live"}
        return
    assert live(shop) == "build_1"
    report = run.rebuild(settings, Options(), watcher, threading.Event())
    assert report.resumed
    assert builds(shop) == {"build_1": "previous", report.build: "live"}
    assert log.judge(shop, report.build) == []


def test_payments_that_come_when_their_orders_are_written_are_summed_all_the_same(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings = log.settings(shop)
    written = value(shop, "SELECT min(order_id) FROM build_1.orders WHERE visible")
    count = "SELECT payment_count FROM {}.orders WHERE order_id = %s"
    before = value(shop, count.format("build_1"), written)
    kill("rebuild", "before it is whole", log, shop)
    producer, write = (
        Producer({"bootstrap.servers": log.bootstrap, "log_level": 0}),
        Writer(log.ids),
    )
    for name in (written, "paid-and-never-placed"):
        order = order_content(random.Random(name), name, customers=1)
        payment = payment_content(random.Random(name), order, 99)
        producer.produce("payments", write("payments", payment), name.encode())
    assert producer.flush(30) == 0
    with worker(settings):
        wait_until_live_includes(shop, log.end())
    report = run.rebuild(settings, Options(), watcher, threading.Event())
    assert report.resumed
    assert report.ok, report.result
    assert value(shop, count.format(report.build), written) == before + 1
    assert value(shop, count.format(report.build), "paid-and-never-placed") == 1


def test_stopped_by_hand_it_goes_on_from_where_it_was(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        run.rebuild(settings, Options(), watcher, stop)
    assert builds(shop) == {"build_1": "live", "build_2": "building"}
    assert run.rebuild(settings, Options(swap=False), watcher, threading.Event()).resumed
    assert builds(shop) == {"build_1": "live", "build_2": "ready"}
    assert run.abandon(settings) == ["build_2"]
    assert schemas(shop) == {"build_1"}


def test_what_was_in_before_is_not_paced_as_done_now(
    log: Log, shop: Database, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill("rebuild", "75 % of the bulk is in", log, shop)
    left = sum(offsets(shop, "build_1").values()) - sum(offsets(shop, "build_2").values())
    told: list[int] = []

    class Telling(Pacer):
        def __call__(self, done: int) -> None:
            told.append(done)
            super().__call__(done)

    monkeypatch.setattr(bulk, "Pacer", Telling)
    assert run.rebuild(log.settings(shop), Options(), watcher, threading.Event()).resumed
    assert told[-1] == left > 0
    assert told == sorted(told)


def test_what_a_killed_call_left_at_work_is_ended(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    name = f"{APPLICATION} {FINISHING}"
    with psycopg.connect(shop.dsn, application_name=name) as orphan:
        orphan.execute("LOCK TABLE build_1.orders IN SHARE MODE")
        run.rebuild(log.settings(shop), Options(), watcher, threading.Event())
        with pytest.raises(psycopg.errors.AdminShutdown):
            orphan.execute("SELECT 1")


def test_from_scratch_drops_what_was_begun(log: Log, shop: Database, watcher: Watcher) -> None:
    settings, stop = log.settings(shop), threading.Event()
    run.rebuild(settings, Options(swap=False), watcher, stop)
    report = run.rebuild(settings, Options(swap=False, from_scratch=True), watcher, stop)
    assert not report.resumed
    assert builds(shop) == {"build_1": "live", report.build: "ready"}
    assert run.swap_ready(settings, watcher, stop).swapped is not None
    assert live(shop) == report.build


def test_several_processes_at_once_build_the_same(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings = log.settings(shop)
    report = run.rebuild(settings, Options(processes=2), watcher, threading.Event())
    assert report.ok
    assert log.judge(shop, report.build) == []
