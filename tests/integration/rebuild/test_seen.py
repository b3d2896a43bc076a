"""Operators see every build, the one that is being made too: status, health page, metrics."""

import json
import threading
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli.main import app
from dev.ports import free_port
from ingest import operate
from rebuild import run
from rebuild.report import Options
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.rebuild.parts import Interrupting, Log, offsets, worker

WAIT_S = 30.0


def status(log: Log, shop: Database) -> dict[str, Any]:
    """`viewkeeper status --json`, by build."""
    done = CliRunner().invoke(app, ["status", "--json"], env=dict(log.environment(shop)))
    assert done.exit_code == 0, done.output
    # A worker of this process writes its lines the same way.
    answer = json.loads(done.stdout[done.stdout.index("{\n") :])
    return {build["name"]: build for build in answer["builds"]}


def test_both_builds_are_seen_while_one_is_made(log: Log, shop: Database) -> None:
    port = free_port()
    settings = log.settings(shop).model_copy(update={"ops_port": port})
    page = f"http://127.0.0.1:{port}"
    seen: dict[str, Any] = {}

    def ready() -> dict[str, str]:
        answer = httpx.get(f"{page}/readyz", trust_env=False)
        return {build["name"]: build["state"] for build in answer.json()["builds"]}

    def look() -> None:
        eventually(lambda: len(ready()) == 2, WAIT_S, "the worker has seen both builds")
        seen.update(
            ready=ready(),
            status=status(log, shop),
            held=sum(offsets(shop, "build_2").values()),
            metrics=httpx.get(f"{page}/metrics", trust_env=False).text,
        )

    with worker(settings):
        watcher = Interrupting(at="aggregates", call=look)
        report = run.rebuild(settings, Options(), watcher, threading.Event())
        eventually(
            lambda: ready() == {"build_1": "previous", report.build: "live"},
            WAIT_S,
            "the worker has seen the swap",
        )
        after = httpx.get(f"{page}/metrics", trust_env=False).text
    assert seen["ready"] == {"build_1": "live", report.build: "building"}
    assert {name: build["live"] for name, build in seen["status"].items()} == {
        "build_1": True,
        report.build: False,
    }
    held = sum(p["next_offset"] for p in seen["status"][report.build]["partitions"])
    assert f'viewkeeper_build_events{{build="{report.build}",state="building"}}' in seen["metrics"]
    assert f'viewkeeper_build_events{{build="{report.build}",state="live"}}' in after
    assert 'state="building"' not in after
    assert held == seen["held"] > 0
    assert status(log, shop)[report.build]["live"] is True


def test_a_build_that_is_dropped_while_status_looks_is_left_out(
    log: Log, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds, calls = operate.builds, []

    def with_a_ghost(connection: operate.Connection) -> list[operate.Build]:
        calls.append(connection)
        gone = operate.Build(number=99, name="build_99", state="building")
        return [*builds(connection), *([gone] if len(calls) == 1 else [])]

    monkeypatch.setattr(operate, "builds", with_a_ghost)
    assert status(log, shop).keys() == {"build_1"}
    assert len(calls) == 2
