"""A rebuild beside live ingest while workers die, the group rebalances and servers restart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import TopicPartition
from typer.testing import CliRunner, Result

from cli.main import app
from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground
from tests.faults.oracle import Registry, check_invariants, expect, high_watermarks, read_log
from tests.faults.oracle.compare import differences, hold
from tests.fixtures.waiting import PATIENCE_S, eventually
from views import CATALOGUE

WORKER_KILLED: Final = "worker killed while a rebuild runs"
REBALANCED: Final = "rebalance while a rebuild runs"
BROKER_RESTARTED: Final = "broker restarted while a rebuild runs"
POSTGRES_RESTARTED: Final = "PostgreSQL restarted while a rebuild runs"
REFUSED: Final = "rebuild refused"
_REBUILD_S: Final = 180.0
_HEALED_S: Final = PATIENCE_S
ROOT: Final = Path(__file__).parents[2]


def environment(ground: Ground) -> Mapping[str, str]:
    """Settings of the commands, straight to the servers."""
    return {
        "VIEWKEEPER_DATABASE_URL": ground.place.dsn,
        "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": ground.place.bootstrap,
        "VIEWKEEPER_KAFKA_RECONNECT_BACKOFF_MAX_MS": "500",
        "VIEWKEEPER_SCHEMA_REGISTRY_URL": ground.place.registry_url,
        "VIEWKEEPER_GROUP_ID": ground.place.group,
    }


def command(ground: Ground, *arguments: str) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, list(arguments), env=dict(environment(ground)))


class Rebuilding:
    """`viewkeeper rebuild` in a process of its own."""

    def __init__(self, ground: Ground, *arguments: str) -> None:
        self._ground = ground
        inherited = {n: v for n, v in os.environ.items() if not n.startswith("VIEWKEEPER_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "rebuild", "--json", *arguments],
            cwd=ROOT,
            env={**inherited, **environment(ground)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def done(self) -> int:
        """How many offsets the build that it fills has committed."""
        ((name,),) = self._ground.ask(
            "SELECT max(name) FILTER (WHERE state = 'building') FROM ingest.builds"
        )
        if name is None:
            return 0
        ((done,),) = self._ground.ask(
            f"SELECT coalesce(sum(next_offset), 0)::int FROM {name}.positions"
        )
        return int(done)

    def wait_for(self, done: int) -> None:
        """Return when it is so far, and not at its end."""
        eventually(lambda: self.done() >= done, _HEALED_S, f"{done} offsets are in the new build")
        assert self.running, self.end()

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Exit code, report, and what it said."""
        out, said = self._process.communicate(timeout=_REBUILD_S)
        return self._process.returncode, json.loads(out) if out else {}, said

    def kill(self) -> None:
        """End it, if it still runs."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def rebuilding(ground: Ground, *arguments: str) -> Iterator[Rebuilding]:
    """A rebuild that is ended with the test."""
    made = Rebuilding(ground, *arguments)
    try:
        yield made
    finally:
        made.kill()


def live(ground: Ground) -> str:
    """The schema that is served."""
    return str(ground.ask("SELECT name FROM ingest.builds WHERE state = 'live'")[0][0])


def wait_until_in(ground: Ground) -> None:
    """Return when the live build, whichever it is, holds all of the log."""
    ends = high_watermarks(ground.place.bootstrap, CATALOGUE.topics)

    def is_in() -> bool:
        rows = ground.ask(f"SELECT topic, partition, next_offset FROM {live(ground)}.positions")
        held = {(topic, partition): offset for topic, partition, offset in rows}
        return all(held.get(place, 0) >= end for place, end in ends.items())

    eventually(is_in, _HEALED_S, "every partition is at its end")


def wrong(ground: Ground, build: str) -> list[str]:
    """What the oracle holds against a build."""
    held = hold(ground.place.dsn, build)
    records, pinned = read_log(ground.place.bootstrap, CATALOGUE.topics, until=held.next_offsets)
    expected = expect(
        records,
        Registry(ground.place.registry_url),
        next_offsets=pinned,
        recorded=held.recorded,
    )
    found = [*differences(held, expected), *check_invariants(ground.place.dsn, build)]
    return [str(each) for each in found]


@pytest.mark.parametrize(
    ("orders", "rate", "live_per_s"),
    [
        pytest.param(250, 80, 20, id="250-80"),
        pytest.param(4_000, 700, 50, id="4000-700", marks=pytest.mark.proof),
    ],
)
def test_a_rebuild_goes_on_whatever_breaks(
    field: Field, ground: Ground, orders: int, rate: int, live_per_s: int
) -> None:
    ground.send(ground.traffic(orders, seed=3))
    worker = ground.worker(BATCH_ROWS="500")
    wait_until_in(ground)
    later = ground.traffic(100_000, seed=4, prefix="later")
    trickle = ground.trickle(later, per_s=live_per_s)
    total = sum(ground.positions().values())
    with rebuilding(ground, "--throttle", str(rate), "--processes", "2") as rebuild:
        rebuild.wait_for(total // 20)
        second = command(ground, "rebuild")
        assert second.exit_code == 1
        assert "another one is running: rebuild " in second.stderr
        worker.kill()
        ground.bites.bit(WORKER_KILLED)
        one, other = ground.worker(), ground.worker()
        ground.wait_for_share(one, other)
        ground.bites.bit(REBALANCED)
        rebuild.wait_for(total // 4)
        field.stack.kafka.restart()
        ground.bites.bit(BROKER_RESTARTED)
        rebuild.wait_for(total // 2)
        field.stack.postgres.restart("immediate")
        ground.bites.bit(POSTGRES_RESTARTED)
        code, report, said = rebuild.end()
    assert (code, report.get("ok"), report.get("equal")) == (0, True, True), (report, said)
    assert "waiting, it goes on by itself" in said
    assert report["resumed"] is True
    assert live(ground) == report["build"] == "build_2"
    trickle.stop()
    wait_until_in(ground)
    assert wrong(ground, "build_2") == []
    assert wrong(ground, "build_1") == []


def test_a_trimmed_log_is_refused_with_the_number_of_missing_events(ground: Ground) -> None:
    ground.send(ground.traffic(60, seed=5))
    ground.worker()
    wait_until_in(ground)
    ends = high_watermarks(ground.place.bootstrap, CATALOGUE.topics)
    cut = {("orders", 0): 5, ("payments", 1): ends["payments", 1] // 2}
    admin = ground.admin()
    wanted = [TopicPartition(topic, number, at) for (topic, number), at in cut.items()]
    for done in admin.delete_records(wanted).values():
        done.result()
    refused = command(ground, "rebuild")
    assert refused.exit_code == 1
    assert f"{sum(cut.values()):,} events are gone from the log" in refused.stderr
    assert "orders:0 begins at 5" in refused.stderr
    assert [row[0] for row in ground.ask("SELECT name FROM ingest.builds")] == ["build_1"]
    ground.bites.bit(REFUSED)
    # Accepted, the proof shows what the log no longer adds up to, and nothing is switched.
    partial = command(ground, "rebuild", "--accept-missing", "--json")
    assert partial.stdout, partial.stderr
    report = json.loads(partial.stdout)
    assert (partial.exit_code, report["swapped"]) == (1, None)
    assert sum(view["different"] + view["too_many"] for view in report["views"]) > 0
    assert any("begins at" in note for note in report["notes"])
