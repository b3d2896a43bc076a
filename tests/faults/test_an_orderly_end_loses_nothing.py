"""SIGTERM with a batch in hand, `--until`, pause and resume, all in mid-stream: nothing is lost."""

from __future__ import annotations

from typing import Final

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.faults.harness.ground import Ground
from tests.faults.harness.workers import QUICK, WorkerProcess
from tests.faults.oracle import high_watermarks
from tests.fixtures.waiting import PATIENCE_S, eventually
from views import CATALOGUE
from views.positions import PositionVector

TERMINATED: Final = "SIGTERM with a batch in hand"
STOPPED: Final = "stopped at a position in mid-stream"
PAUSED: Final = "topic paused in mid-stream"
TIMES: Final = 3
_S: Final = PATIENCE_S


def _run(ground: Ground, *arguments: str) -> str:
    """A command in this process, straight to the servers."""
    place = ground.place
    environment = {
        **QUICK,
        "VIEWKEEPER_DATABASE_URL": place.dsn,
        "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": place.bootstrap,
        "VIEWKEEPER_SCHEMA_REGISTRY_URL": place.registry_url,
        "VIEWKEEPER_GROUP_ID": place.group,
        "VIEWKEEPER_OPS_PORT": "0",
    }
    done = CliRunner().invoke(app, list(arguments), env=environment)
    assert done.exit_code == 0, done.output
    return done.stdout


def _moves(ground: Ground, worker: WorkerProcess) -> int:
    return sum(link.moves and link.writer.endswith(worker.owner) for link in ground.links())


def test_a_worker_told_to_end_finishes_the_batch_in_hand(ground: Ground) -> None:
    trickle = ground.trickle(ground.traffic(50_000, seed=41), per_s=150)
    for _ in range(TIMES):
        worker = ground.worker()
        ground.wait_for_progress(50)
        held = ground.proxy.hold()
        assert held.caught.wait(_S), "no batch came to its commit"
        before = _moves(ground, worker)
        worker.process.request_stop()
        held.let_go.set()
        assert worker.process.wait(_S) == 0, worker.log
        assert _moves(ground, worker) > before, "the batch in hand was thrown away"
        ground.bites.bit(TERMINATED)
    ground.worker()
    trickle.stop()
    ground.must_be_right()


def test_a_worker_stops_exactly_at_a_position_while_more_comes(ground: Ground) -> None:
    ground.send(ground.traffic(150, seed=42))
    ends = high_watermarks(ground.place.bootstrap, CATALOGUE.topics)
    trickle = ground.trickle(ground.traffic(50_000, seed=43, prefix="later"), per_s=150)
    for part in (3, 2, 1):
        wanted = {partition: end // part for partition, end in ends.items()}
        _run(ground, "ingest", "--until", str(PositionVector(wanted)))
        assert ground.positions() == wanted
        beyond = sum(high_watermarks(ground.place.bootstrap, CATALOGUE.topics).values())
        assert beyond > sum(wanted.values())
        ground.bites.bit(STOPPED)
    ground.worker()
    trickle.stop()
    ground.must_be_right()


@pytest.mark.parametrize("topic", CATALOGUE.topics)
def test_a_paused_topic_stands_still_and_goes_on_where_it_stood(ground: Ground, topic: str) -> None:
    def at(*, paused: bool) -> int:
        return sum(n for (name, _), n in ground.positions().items() if (name == topic) == paused)

    def lag() -> int:
        ends = high_watermarks(ground.place.bootstrap, CATALOGUE.topics)
        return sum(end for (name, _), end in ends.items() if name == topic) - at(paused=True)

    def stands_still() -> bool:
        """While the other topic goes on."""
        stood, moved = at(paused=True), at(paused=False)
        eventually(lambda: at(paused=False) >= moved + 150, _S, "the other topic goes on")
        return at(paused=True) == stood

    trickle = ground.trickle(ground.traffic(50_000, seed=44), per_s=150)
    ground.worker()
    ground.wait_for_progress(100)
    _run(ground, "pause", topic)
    eventually(stands_still, _S, "the worker has looked, and holds back")
    eventually(lambda: lag() >= 100, _S, "the paused topic falls behind")
    assert stands_still()
    ground.bites.bit(PAUSED)
    _run(ground, "resume", topic)
    trickle.stop()
    ground.must_be_right()
