"""A topic gone bad stops its partition, loses nothing, and goes on by one command."""

import pytest

from tests.fixtures.waiting import eventually
from tests.integration.dead_letters.scene import LateSchema, Scene
from tests.integration.ingest.running import BUILD, WAIT_S

STOPPED_AT = 10 + 19


def _stopped(scene: Scene) -> str:
    (row,) = scene.query(
        f"SELECT stopped_reason FROM {BUILD}.positions WHERE topic = 'orders'"
    ) or [(None,)]
    return row[0] or ""


def _wait_stopped(scene: Scene) -> str:
    return eventually(lambda: _stopped(scene), WAIT_S, "orders:0 is stopped")


def _position(scene: Scene) -> int:
    sql = f"SELECT next_offset FROM {BUILD}.positions WHERE topic = 'orders'"
    return int(scene.query(sql)[0][0])


@pytest.mark.parametrize("batch_rows", [1, 7, 1_000])
def test_a_topic_gone_bad_stops_at_the_same_record_whatever_the_batches(
    scene: Scene, batch_rows: int
) -> None:
    ends = scene.tell(scene.good(10), scene.bad(60), scene.good(10, prefix="behind"))
    ends |= scene.tell(scene.good(10, topic="payments"))
    worker = scene.worker(batch_rows=batch_rows)
    reason = _wait_stopped(scene)
    assert f"orders:0 is stopped at offset {STOPPED_AT}" in reason
    assert "BAD_MAGIC" in reason
    assert _position(scene) == STOPPED_AT
    assert [offset for _topic, offset, _reason in scene.dead()] == list(range(10, STOPPED_AT))
    # It is said aloud, and the other partition goes on.
    assert reason in worker.ready()["problems"]
    scene.reach({("payments", 0): ends["payments", 0]})
    assert scene.orders("behind") == 0
    # The loss accepted, one resume is enough for what is left: 41 in a row.
    told = scene.run("resume", "orders", "0", "--accept-loss", "--as", "ada")
    assert "accept-loss" in told
    scene.reach(ends)
    assert len(scene.dead()) == 60
    assert scene.orders("behind") == 10
    assert scene.differences() == []
    eventually(lambda: worker.ready().get("ready"), WAIT_S, "the worker is ready")
    (decision,) = scene.run_json("positions", "decisions")["decisions"]
    assert (decision["decision"], decision["decided_by"]) == ("accept-loss", "ada")
    assert (decision["from_offset"], decision["to_offset"]) == (STOPPED_AT, 80)


def test_after_the_mend_a_plain_resume_loses_nothing_more(scene: Scene) -> None:
    late = LateSchema(scene.registry, "mended")
    records = scene.of_schema(late.id, 60, prefix="late")
    ends = scene.tell(scene.good(10), records)
    worker = scene.worker()
    assert "UNKNOWN_SCHEMA" in _wait_stopped(scene)
    late.register()
    assert "resumed: orders:0" in scene.run("resume", "orders", "0")
    scene.reach(ends)
    assert scene.dead() == [("orders", at, "UNKNOWN_SCHEMA") for at in range(10, STOPPED_AT)]
    assert scene.orders("late") == 60 - 19
    scene.run("dead-letters", "redrive", "--all")
    assert scene.orders("late") == 60
    assert scene.differences() == []
    assert worker.running


def test_a_resume_without_a_mend_stops_again_soon(scene: Scene) -> None:
    scene.tell(scene.good(10), scene.bad(60))
    scene.worker()
    _wait_stopped(scene)
    scene.run("resume", "orders", "0")
    eventually(lambda: "offset 48" in _stopped(scene), WAIT_S, "it stopped again")
    assert len(scene.dead()) == 19 + 19
    assert scene.run("resume", "payments", "--accept-loss", code=1) == ""


def test_what_the_database_refuses_opens_the_breaker_too(scene: Scene) -> None:
    scene.query(
        f"ALTER TABLE {BUILD}.orders ADD CONSTRAINT t CHECK (order_id NOT LIKE 'refused%%')"
    )
    scene.tell(scene.good(10), scene.good(40, prefix="refused"))
    scene.worker(batch_rows=8)
    assert "REFUSED_BY_DATABASE" in _wait_stopped(scene)
    assert _position(scene) == STOPPED_AT
    assert {reason for _topic, _offset, reason in scene.dead()} == {"REFUSED_BY_DATABASE"}
    assert scene.orders("good") == 10
