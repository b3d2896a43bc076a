"""Redrive: today's reader, the same fold and write, one transaction, exactly once."""

import signal
import threading
from collections.abc import Callable, Sequence

import pytest

from ingest.operate import DeadLetterFilter
from ingest.records import Item, Record
from ingest.redrive import DecoderPort, redriving
from schemas.registry import Registry
from tests.fixtures.waiting import eventually
from tests.integration.dead_letters.scene import LateSchema, Scene
from tests.integration.ingest.running import BUILD, WAIT_S, dump, positions

_CHANGED = ("positions", "dead_letters")


def _counter(scene: Scene) -> int:
    sql = "SELECT change_counter FROM ingest.builds WHERE state = 'live'"
    return int(scene.query(sql)[0][0])


def _listed(scene: Scene) -> int:
    return int(scene.query(f"SELECT count(*) FROM {BUILD}.applied_dead_letters")[0][0])


def _rows(scene: Scene) -> dict[str, list[str]]:
    return {name: rows for name, rows in dump(scene.dsn).items() if name not in _CHANGED}


@pytest.fixture
def late(scene: Scene) -> LateSchema:
    """A schema that is unknown until the test registers it."""
    return LateSchema(scene.registry, "late")


@pytest.fixture
def dead(scene: Scene, late: LateSchema) -> Scene:
    """Three orders dead for want of their schema, among ten good ones."""
    ends = scene.tell(scene.good(10), scene.of_schema(late.id, 3, prefix="late"))
    scene.worker()
    scene.reach(ends)
    assert [offset for _topic, offset, _reason in scene.dead()] == [10, 11, 12]
    return scene


def test_a_redrive_applies_closes_and_tells_and_a_second_one_changes_nothing(
    dead: Scene, late: LateSchema
) -> None:
    late.register()
    before = positions(dead.dsn)
    counter = _counter(dead)
    done = dead.run_json("dead-letters", "redrive", "--topic", "orders", "--as", "ada")
    assert (done["redriven"], done["still_open"]) == (3, 0)
    assert positions(dead.dsn) == before
    assert _counter(dead) == counter + 1
    assert _listed(dead) == 3
    assert dead.orders("late") == 3
    assert dead.query(
        "SELECT DISTINCT state, decided_by, decided_at IS NOT NULL FROM ingest.dead_letters"
    ) == [("redriven", "ada", True)]
    assert dead.differences() == []
    rows = dump(dead.dsn)
    assert dead.run_json("dead-letters", "redrive", "--all")["redriven"] == 0
    assert dump(dead.dsn) == rows
    assert _counter(dead) == counter + 1


def test_a_dry_run_says_what_would_happen_and_changes_nothing(
    dead: Scene, late: LateSchema
) -> None:
    late.register()
    rows = dump(dead.dsn)
    assert "3 would be redriven, 0 stay open" in dead.run(
        "dead-letters", "redrive", "--all", "--dry-run"
    )
    assert "3 dead letters would be discarded" in dead.run(
        "dead-letters", "discard", "--all", "--dry-run"
    )
    assert dump(dead.dsn) == rows
    assert _counter(dead) == 0


def test_what_still_cannot_be_decoded_stays_open_and_says_why(dead: Scene) -> None:
    answer = dead.run_json("dead-letters", "redrive", "--from-offset", "11", code=1)
    assert {letter["reason"] for letter in answer["dead_letters"]} == {"UNKNOWN_SCHEMA"}
    assert answer["still_open"] == 2
    tried = dead.query(
        'SELECT "offset", state, attempts, last_seen_at > first_seen_at FROM ingest.dead_letters'
        ' ORDER BY "offset"'
    )
    assert tried == [(10, "open", 3, False), (11, "open", 4, True), (12, "open", 4, True)]
    assert _counter(dead) == 0


def test_an_event_older_than_its_row_is_dropped_by_its_version_and_closed(
    scene: Scene, late: LateSchema
) -> None:
    old = scene.of_schema(late.id, 1, prefix="overtaken")
    newer = scene.order("overtaken-0", version=2, status="SHIPPED")
    scene.worker()
    scene.reach(scene.tell(old, [newer]))
    late.register()
    rows = _rows(scene)
    assert "1 redriven" in scene.run("dead-letters", "redrive", "--reason", "UNKNOWN_SCHEMA")
    assert _rows(scene) == rows
    assert scene.differences() == []


def test_a_version_conflict_stays_open_until_its_row_is_newer(scene: Scene) -> None:
    scene.worker()
    other = scene.order("rival", status="CANCELLED")
    scene.reach(scene.tell([scene.order("rival"), other]))
    rows = _rows(scene)
    answer = scene.run_json("dead-letters", "redrive", "--all", code=1)
    assert answer["dead_letters"][0]["reason"] == "VERSION_CONFLICT"
    assert _rows(scene) == rows
    scene.reach(scene.tell([scene.order("rival", version=2)]))
    assert scene.run_json("dead-letters", "redrive", "--all")["redriven"] == 1


def test_one_letter_that_the_database_refuses_does_not_hold_up_its_neighbours(
    dead: Scene, late: LateSchema
) -> None:
    late.register()
    dead.query(f"ALTER TABLE {BUILD}.orders ADD CONSTRAINT t CHECK (order_id <> 'late-1')")
    answer = dead.run_json("dead-letters", "redrive", "--all", code=1)
    assert answer["redriven"] == 2
    (left,) = [letter for letter in answer["dead_letters"] if not letter["redriven"]]
    assert (left["offset"], left["reason"]) == (11, "REFUSED_BY_DATABASE")


class _Overtaken:
    """A decoder during whose work something else happens."""

    def __init__(self, decoder: DecoderPort, meanwhile: Callable[[], object]) -> None:
        self._decoder = decoder
        self._meanwhile = meanwhile

    def decode(self, records: Sequence[Record]) -> list[Item]:
        self._meanwhile()
        return self._decoder.decode(records)


def test_a_redrive_that_another_one_overtakes_changes_nothing(
    dead: Scene, late: LateSchema
) -> None:
    late.register()
    other = ("dead-letters", "redrive", "--all", "--as", "ben")
    with (
        Registry(dead.registry) as registry,
        redriving(dead.dsn, registry, who="ada", stop=threading.Event()) as slow,
    ):
        slow.decoder = _Overtaken(slow.decoder, lambda: dead.run(*other))
        assert list(slow.run(DeadLetterFilter())) == []
    assert dead.query("SELECT DISTINCT decided_by FROM ingest.dead_letters") == [("ben",)]
    assert (_counter(dead), _listed(dead), dead.orders("late")) == (1, 3, 3)


def test_a_letter_of_an_earlier_life_of_its_topic_is_not_applied(
    dead: Scene, late: LateSchema
) -> None:
    late.register()
    dead.query("UPDATE ingest.dead_letters SET topic_id = 'another' WHERE \"offset\" = 10")
    answer = dead.run_json("dead-letters", "redrive", "--all", code=1)
    assert answer["redriven"] == 2
    assert answer["dead_letters"][0]["reason"] == "ANOTHER_TOPIC"


def test_nothing_is_redriven_by_accident(dead: Scene) -> None:
    dead.run("dead-letters", "redrive", code=2)
    dead.run("dead-letters", "discard", code=2)
    assert len(dead.dead()) == 3


def test_a_thousand_redrives_interrupted_by_kills_are_applied_once_each(
    scene: Scene, late: LateSchema
) -> None:
    """10 % among good events; each kill hits a redrive that has done a part."""
    good, bad = scene.good(9_000), scene.of_schema(late.id, 1_000, prefix="late")
    mixed = [r for n in range(1_000) for r in (*good[n * 9 : n * 9 + 9], bad[n])]
    ends = scene.tell(mixed)
    scene.worker()
    scene.reach(ends)
    assert len(scene.dead()) == 1_000
    late.register()
    kills = 0
    while (done := len(scene.dead("redriven"))) < 1_000:
        process = scene.process("dead-letters", "redrive", "--all")
        try:
            if kills < 2:
                eventually(
                    lambda: len(scene.dead("redriven")) > done or process.poll() is not None,  # noqa: B023
                    WAIT_S,
                    "a batch is redriven",
                )
                process.send_signal(signal.SIGKILL)
            kills += process.wait(WAIT_S) == -signal.SIGKILL
        finally:
            process.kill()
            process.communicate()
    assert kills == 2
    assert _listed(scene) == 1_000
    assert scene.orders("late") == 1_000
    assert scene.differences() == []
