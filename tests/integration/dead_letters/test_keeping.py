"""Dead letters on record: discarded, purged, shown, and met again in the log."""

import json
from dataclasses import replace

import psycopg

from ingest.operate import DeadLetterFilter, discard
from tests.integration.dead_letters.scene import LateSchema, Scene
from tests.integration.ingest.running import BUILD, dump


def test_discarded_letters_stay_out_for_good_and_stay_on_record(scene: Scene) -> None:
    scene.worker()
    scene.reach(scene.tell(scene.bad(5)))
    assert scene.run_json("dead-letters", "discard", "--to-offset", "2", "--as", "ada") == {
        "dry_run": False,
        "discarded": 3,
    }
    assert [offset for _topic, offset, _reason in scene.dead("discarded")] == [0, 1, 2]
    assert scene.query(
        "SELECT DISTINCT decided_by FROM ingest.dead_letters WHERE state = 'discarded'"
    ) == [("ada",)]
    assert "2 stay open" in scene.run("dead-letters", "redrive", "--all", code=1)
    listed = scene.run_json("dead-letters", "list", "--state", "all", "--from-offset", "2")
    assert [letter["offset"] for letter in listed["dead_letters"]] == [2, 3, 4]


def test_a_purge_removes_the_bytes_and_keeps_what_was_decided(scene: Scene) -> None:
    scene.worker()
    scene.reach(scene.tell(scene.bad(4)))
    scene.run("dead-letters", "discard", "--to-offset", "1")
    assert "0 dead letters purged" in scene.run("dead-letters", "purge", "--older-than", "1d")
    scene.query("UPDATE ingest.dead_letters SET first_seen_at = now() - interval '2 days'")
    assert "2 dead letters would be purged" in scene.run(
        "dead-letters", "purge", "--older-than", "1d", "--dry-run"
    )
    assert "2 dead letters purged" in scene.run(
        "dead-letters", "purge", "--older-than", "1d", "--as", "ann"
    )
    assert scene.query("SELECT DISTINCT detail FROM ingest.dead_letters WHERE value IS NULL") == [
        ("purged by ann",)
    ]
    rows = scene.query(
        'SELECT "offset", state, reason, key IS NULL AND value IS NULL AND headers IS NULL,'
        ' purged_at IS NOT NULL FROM ingest.dead_letters ORDER BY "offset"'
    )
    assert rows == [
        (0, "discarded", "BAD_MAGIC", True, True),
        (1, "discarded", "BAD_MAGIC", True, True),
        (2, "open", "BAD_MAGIC", False, False),
        (3, "open", "BAD_MAGIC", False, False),
    ]
    assert "2 dead letters purged" in scene.run(
        "dead-letters", "purge", "--older-than", "1d", "--open"
    )
    answer = scene.run_json("dead-letters", "redrive", "--all", code=1)
    assert {letter["reason"] for letter in answer["dead_letters"]} == {"PURGED"}
    shown = scene.run("dead-letters", "show", str(answer["dead_letters"][0]["id"]))
    assert "removed at" in shown


def test_what_was_decided_on_a_letter_stays_decided(scene: Scene) -> None:
    scene.worker()
    scene.reach(scene.tell(scene.bad(2)))
    scene.run("dead-letters", "discard", "--to-offset", "0", "--as", "ada")
    assert scene.run_json("dead-letters", "discard", "--all", "--as", "ben")["discarded"] == 1
    decided = 'SELECT "offset", decided_by FROM ingest.dead_letters ORDER BY 1'
    assert scene.query(decided) == [(0, "ada"), (1, "ben")]
    with psycopg.connect(scene.dsn) as connection:
        assert discard(connection, DeadLetterFilter(), who="eve") == 0
    assert scene.query(decided) == [(0, "ada"), (1, "ben")]


def test_what_is_purged_is_not_sent_any_more(scene: Scene) -> None:
    scene.worker(create_dead_letter_topics=False)
    scene.reach(scene.tell(scene.bad(2)))
    scene.query(
        "UPDATE ingest.dead_letters SET first_seen_at = now() - interval '2 days'"
        ' WHERE "offset" = 0'
    )
    scene.run("dead-letters", "purge", "--older-than", "1d", "--open")
    assert scene.query(
        'SELECT d."offset" FROM ingest.outbox o'
        " JOIN ingest.dead_letters d ON d.id = o.dead_letter_id"
    ) == [(1,)]


def test_a_log_read_again_goes_by_the_state_of_its_letters_and_makes_no_second_one(
    scene: Scene,
) -> None:
    """All four could be applied by now; only the redriven one belongs into the rows."""
    late = LateSchema(scene.registry, "again")
    names = ("open", "gone", "back", "later")
    records = [r for name in names for r in scene.of_schema(late.id, 1, prefix=name)]
    ends = scene.tell(scene.good(10), records)
    first = scene.worker()
    scene.reach(ends)
    first.stop()
    late.register()
    scene.run("dead-letters", "discard", "--from-offset", "11", "--to-offset", "11")
    scene.run("dead-letters", "redrive", "--from-offset", "12", "--to-offset", "12")
    rows, letters = dump(scene.dsn), scene.query("SELECT count(*) FROM ingest.dead_letters")
    _forget_everything_but_letters(scene)
    scene.worker()
    scene.reach(ends)
    assert scene.query("SELECT count(*) FROM ingest.dead_letters") == letters
    assert (scene.orders("open"), scene.orders("gone"), scene.orders("back")) == (0, 0, 1)
    assert dump(scene.dsn)["orders"] == rows["orders"]
    assert scene.query(f'SELECT "offset" FROM {BUILD}.applied_dead_letters') == [(12,)]
    assert scene.query(f"SELECT applied, dead FROM {BUILD}.positions WHERE topic = 'orders'") == [
        (11, 3)
    ]
    # Read anew, a redriven record counts as applied at its place; the oracle counts it as it was
    # when it was first read. The counters were looked at above; every row must agree.
    assert [d for d in scene.differences() if not d.startswith("positions")] == []


def _forget_everything_but_letters(scene: Scene) -> None:
    """The live build as if it had not read anything yet."""
    tables = ("orders", "payments", "customer_totals", "daily_sales", "tombstones")
    for table in (*tables, "applied_dead_letters"):
        scene.query(f"TRUNCATE {BUILD}.{table}")
    scene.query(
        f"UPDATE {BUILD}.positions SET next_offset = 0, applied = 0, superseded = 0,"
        " duplicates = 0, tombstones = 0, dead = 0"
    )


def test_show_reads_as_far_as_it_goes_and_points_at_the_byte_without_a_registry(
    scene: Scene,
) -> None:
    whole = scene.order("cut-0")
    assert whole.value is not None
    scene.worker()
    scene.reach(scene.tell([replace(whole, value=whole.value[:70])]))
    listed = scene.run_json("dead-letters", "list")["dead_letters"]
    letter = str(listed[0]["id"])
    away = {"VIEWKEEPER_SCHEMA_REGISTRY_URL": "http://127.0.0.1:9"}
    for environment in (None, away):
        shown = scene.run("dead-letters", "show", letter, environment=environment)
        assert "TRUNCATED" in shown
        assert "cut-0" in shown
        assert "^^" in shown
    for_programs = json.loads(scene.run("dead-letters", "show", letter, "--json"))
    assert for_programs["fields"]["order_id"] == "cut-0"
