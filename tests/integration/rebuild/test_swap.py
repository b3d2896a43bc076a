"""Swaps lose nothing and stop nobody: workers go on in the new build, people see it at once."""

import threading
from typing import Any

import psycopg
import pytest

from ingest.errors import RefusedError, TransientError
from rebuild import run, swap
from rebuild.report import Options, Report
from rebuild.swap import Swap, Swapped
from tests.fixtures.databases import Database
from tests.integration.rebuild.parts import (
    Log,
    Watcher,
    builds,
    execute,
    live,
    offsets,
    schemas,
    value,
    wait_until_live_includes,
    worker,
)
from views.positions import PositionVector

SWAPS = 4


def test_swaps_back_and_forth_under_live_ingest_lose_nothing(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    seen = []
    with worker(settings):
        for seed in range(20, 20 + SWAPS):
            producer = threading.Thread(target=log.produce, kwargs={"seed": seed, "orders": 25})
            producer.start()
            if seed == 20:
                report = run.rebuild(settings, Options(), watcher, stop)
            else:
                report = run.roll_back(settings, watcher, stop, now=False)
            producer.join()
            assert report.swapped is not None
            seen.append((report.swapped.before, report.swapped.now))
        log.produce(seed=40, orders=20)
        wait_until_live_includes(shop, log.end())
    assert seen == [("build_1", "build_2"), ("build_2", "build_1")] * (SWAPS // 2)
    assert live(shop) == "build_1"
    assert log.judge(shop, "build_1") == []


def test_a_live_worker_goes_on_in_the_new_build_under_a_newer_epoch(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings = log.settings(shop)
    with worker(settings):
        log.produce(seed=50, orders=5)
        wait_until_live_includes(shop, log.end())
        report = run.rebuild(settings, Options(), watcher, threading.Event())
        left = offsets(shop, "build_1")
        log.produce(seed=51, orders=20)
        wait_until_live_includes(shop, log.end())
    assert offsets(shop, "build_1") == left
    owned = (
        "SELECT bool_and(n.owner_epoch > o.owner_epoch AND n.owner IS NOT NULL"
        " AND n.topic_id = o.topic_id AND n.cluster_id = o.cluster_id)"
        f" FROM {report.build}.positions n JOIN build_1.positions o USING (topic, partition)"
    )
    assert value(shop, owned) is True
    assert log.judge(shop, report.build) == []
    assert run.verify(settings, Options(), watcher, threading.Event()).ok


def test_people_and_readers_see_the_new_build(log: Log, shop: Database, watcher: Watcher) -> None:
    with psycopg.connect(shop.dsn, autocommit=True) as listening:
        listening.execute("LISTEN viewkeeper")
        report = run.rebuild(log.settings(shop), Options(), watcher, threading.Event())
        told = [notice.payload for notice in listening.notifies(timeout=5, stop_after=1)]
    assert told == [f"{report.build} {PositionVector(offsets(shop, report.build))}"]
    with psycopg.connect(shop.dsn) as owner:
        owner.execute(f"UPDATE {report.build}.payments SET method = 'seen'".encode())
    with psycopg.connect(shop.api_dsn) as reader:
        methods = reader.execute("SELECT DISTINCT method FROM views.payments").fetchall()
        names = reader.execute(
            "SELECT count(*) FROM ingest.builds b JOIN ingest.build_views USING (number)"
            " WHERE b.state = 'live'"
        ).fetchone()
        reader.execute(f"SELECT count(*) FROM {report.build}.positions".encode())
    assert methods == [("seen",)]
    assert names == (4,)


def test_at_once_it_says_how_far_it_goes_back_and_the_workers_catch_up(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    run.rebuild(settings, Options(), watcher, stop)
    with worker(settings):
        log.produce(seed=60, orders=30)
        wait_until_live_includes(shop, log.end())
        ahead = sum(offsets(shop, "build_2").values()) - sum(offsets(shop, "build_1").values())
        report = run.roll_back(settings, watcher, stop, now=True)
        assert report.swapped is not None
        assert report.swapped.back_by_events == ahead > 0
        wait_until_live_includes(shop, log.end())
    assert live(shop) == "build_1"
    assert log.judge(shop, "build_1") == []


def test_the_previous_build_is_kept_until_it_is_dropped(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    run.rebuild(settings, Options(), watcher, stop)
    assert builds(shop) == {"build_1": "previous", "build_2": "live"}
    assert run.drop_previous(settings) == ["build_1"]
    assert schemas(shop) == {"build_2"}
    with pytest.raises(RefusedError, match="no previous build"):
        run.roll_back(settings, watcher, stop, now=False)
    with pytest.raises(RefusedError, match="no build is ready"):
        run.swap_ready(settings, watcher, stop)


def test_somebody_who_holds_a_view_for_people_delays_a_swap_and_no_worker(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    run.rebuild(settings, Options(swap=False), watcher, stop)
    swapped: list[Report] = []
    with psycopg.connect(shop.api_dsn) as person, worker(settings):
        person.execute("SELECT count(*) FROM views.orders")
        swapping = threading.Thread(
            target=lambda: swapped.append(run.swap_ready(settings, watcher, stop))
        )
        swapping.start()
        log.produce(seed=70, orders=10)
        wait_until_live_includes(shop, log.end())
        assert live(shop) == "build_1"
        person.rollback()
        swapping.join()
    assert live(shop) == "build_2"
    assert log.judge(shop, "build_2") == []


def test_at_once_it_waits_for_nobody_for_long(
    log: Log, shop: Database, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    run.rebuild(settings, Options(), watcher, stop)
    monkeypatch.setattr(swap, "TRIES", 2)
    monkeypatch.setattr(swap, "LOCK_WAIT_MS", 100)
    with psycopg.connect(shop.api_dsn) as person:
        person.execute("SELECT count(*) FROM views.orders")
        with pytest.raises(TransientError, match="lock timeout"):
            run.roll_back(settings, watcher, stop, now=True)
    assert live(shop) == "build_2"
    report = run.roll_back(settings, watcher, stop, now=True)
    assert report.swapped is not None
    assert live(shop) == "build_1"


def test_a_later_swap_says_how_many_events_came_after_the_proof(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    with worker(settings):
        run.rebuild(settings, Options(swap=False), watcher, stop)
        proved = sum(offsets(shop, "build_2").values())
        log.produce(seed=80, orders=10)
        wait_until_live_includes(shop, log.end())
        report = run.swap_ready(settings, watcher, stop)
    assert report.swapped is not None
    assert report.swapped.events_since_proof == sum(log.end().next_offsets.values()) - proved > 0


def test_a_build_of_another_log_is_not_brought_to_these_offsets(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    run.rebuild(settings, Options(swap=False), watcher, stop)
    execute(shop, "UPDATE build_2.positions SET topic_id = 'another life' WHERE topic = 'orders'")
    with pytest.raises(RefusedError, match="belongs to another log"):
        run.swap_ready(settings, watcher, stop)
    assert live(shop) == "build_1"


@pytest.mark.parametrize("lost", ["before it", "its answer"])
def test_an_outage_in_a_swap_is_waited_out(
    lost: str, log: Log, shop: Database, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    run.rebuild(settings, Options(swap=False), watcher, stop)
    caught_up, calls = Swap.caught_up, []

    def cut(self: Swap, **options: Any) -> Swapped:
        calls.append(lost)
        if len(calls) > 1:
            return caught_up(self, **options)
        if lost == "its answer":
            caught_up(self, **options)
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(Swap, "caught_up", cut)
    report = run.swap_ready(settings, watcher, stop)
    assert report.swapped is not None
    assert (report.swapped.before, report.swapped.now) == ("build_1", "build_2")
    assert builds(shop) == {"build_1": "previous", "build_2": "live"}
    assert any(line.startswith("waiting") for line in watcher.lines)
