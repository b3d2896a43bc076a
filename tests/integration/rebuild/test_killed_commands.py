"""Commands that change builds may be killed at any step: what is served stays whole.

Beside `test_killed.py`, which kills `rebuild` itself.
"""

import threading
from typing import Any

import pytest

from rebuild import run
from rebuild.report import Options
from tests.fixtures.databases import Database
from tests.integration.rebuild.dying import DROP, REBUILD, REPAIR, STEPS, VERIFY, call
from tests.integration.rebuild.killed import kill
from tests.integration.rebuild.parts import (
    Log,
    Watcher,
    builds,
    content,
    execute,
    live,
    schemas,
    value,
    wait_until_live_includes,
    worker,
)

HELD = "while the live build is held"


def _in_proof(step: str) -> Any:
    """One step in each run, all of them in the proof."""
    return pytest.param(step, marks=[] if step == HELD else [pytest.mark.proof])


def test_a_swap_killed_at_any_step_was_made_whole_or_not_at_all(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings = log.settings(shop)
    rows = content(shop, "build_1")
    run.rebuild(settings, Options(swap=False), watcher, threading.Event())
    before = {"build_1": "live", "build_2": "ready"}
    for command in ("swap", "swap --rollback", "swap --rollback --now"):
        for step in STEPS[command]:
            kill(command, step, log, shop)
            if step != "committed":
                assert builds(shop) == before, f"{command} at {step}"
            for build in before:
                assert content(shop, build) == rows, f"{command} at {step}"
        assert live(shop) != _live(before), f"{command} was committed"
        before = builds(shop)
    for build in before:
        assert log.judge(shop, build) == []
    for step in DROP:
        kill("swap --drop-previous", step, log, shop)
        assert (builds(shop), schemas(shop)) == (before, set(before)), step
    assert run.drop_previous(settings) == ["build_1"]
    assert (builds(shop), schemas(shop)) == ({"build_2": "live"}, {"build_2"})


def _live(states: dict[str, str]) -> str:
    return next(build for build, state in states.items() if state == "live")


def test_a_verify_killed_at_any_step_leaves_nothing_once_the_next_has_ended(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    rows = content(shop, "build_1")
    for step in VERIFY:
        kill("verify", step, log, shop)
        assert content(shop, "build_1") == rows, step
        assert builds(shop) == {"build_1": "live", "build_2": "building"}, step
    report = run.verify(log.settings(shop), Options(), watcher, threading.Event())
    assert report.resumed
    assert report.ok
    assert (builds(shop), schemas(shop)) == ({"build_1": "live"}, {"build_1"})


def test_a_repair_killed_at_any_step_was_made_whole_or_not_at_all(log: Log, shop: Database) -> None:
    right = content(shop, "build_1")
    order = str(value(shop, "SELECT min(order_id) FROM build_1.orders WHERE visible AND paid > 0"))
    execute(
        shop,
        f"UPDATE build_1.orders SET customer_id = 'nobody' WHERE order_id = '{order}'",
        "UPDATE build_1.customer_totals SET paid = paid + 1",
    )
    wrong = content(shop, "build_1")
    for step in REPAIR:
        kill("rebuild --order", step, log, shop, order=order)
        if step != "committed":
            assert content(shop, "build_1") == wrong, step
    mended = content(shop, "build_1")
    assert mended["orders"] == right["orders"]
    assert call("rebuild --order", log.settings(shop), order=order).changes == ()
    assert content(shop, "build_1") == mended
    assert schemas(shop) == {"build_1"}


@pytest.mark.parametrize("step", [_in_proof(step) for step in REBUILD])
def test_a_rebuild_killed_beside_live_ingest_stops_no_worker_and_the_next_call_ends_it(
    step: str, log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, seed = log.settings(shop), 900 + list(REBUILD).index(step)
    with worker(settings):
        producer = threading.Thread(target=log.produce, kwargs={"seed": seed, "orders": 60})
        producer.start()
        kill("rebuild", step, log, shop)
        producer.join()
        wait_until_live_includes(shop, log.end())
        if step != "committed":
            assert live(shop) == "build_1"
            report = run.rebuild(settings, Options(), watcher, threading.Event())
            assert report.resumed
        assert builds(shop) == {"build_1": "previous", "build_2": "live"}
        log.produce(seed=seed + 50, orders=5)
        wait_until_live_includes(shop, log.end())
    assert log.judge(shop, "build_2") == []
