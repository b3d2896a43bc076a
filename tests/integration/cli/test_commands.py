"""The commands on real servers: what they print, and their exit codes."""

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from tests.fixtures.databases import Database
from tests.fixtures.servers import Servers
from tests.fixtures.topics import FreshTopics
from tests.fixtures.waiting import eventually
from views.positions import parse_position

Environment = dict[str, str]
TIMEOUT_S = 60.0


@pytest.fixture
def settings(
    database: Database,
    fresh_topics: FreshTopics,
    registry: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Environment:
    """Settings for every command; the folder has no `.env`."""
    monkeypatch.chdir(tmp_path)
    return {
        "VIEWKEEPER_DATABASE_URL": database.dsn,
        "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": fresh_topics(partitions=2),
        "VIEWKEEPER_SCHEMA_REGISTRY_URL": registry,
        "VIEWKEEPER_GROUP_ID": database.name,
        "VIEWKEEPER_OPS_PORT": "0",
    }


def run(settings: Mapping[str, str], *arguments: str, code: int = 0, text: str = "") -> Result:
    """Run a command in this process."""
    done = CliRunner().invoke(app, list(arguments), env=dict(settings), input=text)
    assert done.exit_code == code, done.output
    return done


def as_json(settings: Mapping[str, str], *arguments: str) -> Any:
    return json.loads(run(settings, *arguments, "--json").stdout)


def ingest(settings: Mapping[str, str], position: str) -> None:
    """A worker of its own, until a position."""
    command = [sys.executable, "-m", "cli.main", "ingest", "--until", position]
    done = subprocess.run(
        command, env=dict(settings), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr


def test_status_counts_every_partition_before_any_worker_has_come(settings: Environment) -> None:
    run(settings, "produce", "--orders", "5")
    status = as_json(settings, "status")
    assert status["caught_up"] is False
    [build] = status["builds"]
    assert (build["name"], build["live"]) == ("build_1", True)
    assert [(line["topic"], line["partition"]) for line in build["partitions"]] == [
        ("orders", 0), ("orders", 1), ("payments", 0), ("payments", 1),
    ]  # fmt: skip
    for line in build["partitions"]:
        assert set(line) == {
            "topic", "partition", "next_offset", "end_offset", "lag_events", "lag_s", "owner",
            "owner_epoch",
        }  # fmt: skip
        assert line["lag_events"] == line["end_offset"]
        assert line["owner"] is None


def test_produced_position_is_reached_by_a_worker_that_stops_there(settings: Environment) -> None:
    made = as_json(settings, "produce", "--orders", "60", "--seed", "4")
    position = parse_position(made["position"])
    assert sum(position.next_offsets.values()) == made["records"]
    assert position.generation is not None
    ingest(settings, made["position"])
    status = as_json(settings, "status")
    assert status["caught_up"] is True
    [build] = status["builds"]
    reached = {(p["topic"], p["partition"]): p["next_offset"] for p in build["partitions"]}
    assert reached == dict(position.next_offsets)
    assert "caught up" in run(settings, "status").stdout


def test_events_from_a_file_are_produced_and_a_bad_line_is_named(
    settings: Environment, tmp_path: Path
) -> None:
    order = {
        "event_id": "7f0b7c9c-6c38-4b2c-9d4b-3f0f4f3c7a11",
        "order_id": "from-file",
        "version": 1,
        "status": "PLACED",
        "customer_id": "greta",
        "currency": "EUR",
        "amount": "12.5",
        "discount": None,
        "items": [],
        "placed_at": "2026-01-01T00:00:00Z",
        "occurred_at": "2026-01-01T00:00:00Z",
    }
    good = json.dumps({"topic": "orders", "key": "from-file", "value": order})
    removal = json.dumps({"topic": "orders", "key": "gone", "value": None})
    file = tmp_path / "events.jsonl"
    file.write_text(f"{good}\n\n{removal}\n")
    made = as_json(settings, "produce", str(file))
    assert made["records"] == 2
    ingest(settings, made["position"])  # which names one topic alone
    assert as_json(settings, "produce", "-") == {"records": 0, "position": ""}
    bad = run(settings, "produce", "-", code=2, text=f"{good}\n{{}}\n")
    assert "line 2: a record is" in bad.stderr
    missing = run(settings, "produce", str(tmp_path / "none"), code=2)
    assert "cannot be read" in missing.stderr


def test_dead_letters_are_listed_and_shown_to_the_failing_byte(settings: Environment) -> None:
    event = as_json(settings, "produce", "--orders", "2000", "--seed", "11", "--prefix", "x")
    ingest(settings, event["position"])
    listed = as_json(settings, "dead-letters", "list", "--limit", "10000")
    counts, letters = listed["counts"], listed["dead_letters"]
    assert sum(counts.values()) == len(letters) > 10
    assert {letter["reason"] for letter in letters} == set(counts)
    only = as_json(settings, "dead-letters", "list", "--reason", "TRUNCATED")["dead_letters"]
    assert len(only) == counts["TRUNCATED"]
    shown = run(settings, "dead-letters", "show", str(only[0]["id"])).stdout
    assert "TRUNCATED" in shown
    assert "order_id " in shown
    assert "then, at byte" in shown
    whole = as_json(settings, "dead-letters", "show", str(only[0]["id"]))
    assert base64.b64decode(whole["value"])[0] == 0
    assert whole["fields"]["version"] == 1
    [first, *_] = letters
    rest = as_json(settings, "dead-letters", "list", "--after", str(first["id"]))["dead_letters"]
    assert first["id"] not in {letter["id"] for letter in rest}
    assert "there is no dead letter" in run(settings, "dead-letters", "show", "0", code=1).stderr
    run(settings, "dead-letters", "list", "--reason", "NO_SUCH", code=2)


def test_every_reason_of_the_sample_traffic_can_be_shown(settings: Environment) -> None:
    event = as_json(settings, "produce", "--orders", "2000", "--seed", "12", "--prefix", "y")
    ingest(settings, event["position"])
    letters = as_json(settings, "dead-letters", "list", "--limit", "10000")["dead_letters"]
    one_of_each = {letter["reason"]: letter["id"] for letter in letters}
    assert len(one_of_each) >= 6
    for reason, letter_id in one_of_each.items():
        assert reason in run(settings, "dead-letters", "show", str(letter_id)).stdout


def test_pause_and_resume_name_what_they_change(settings: Environment) -> None:
    assert "no worker has seen it" in run(settings, "pause", "orders", code=1).stderr
    ingest(settings, run(settings, "produce", "--orders", "5").stdout.strip())
    assert run(settings, "pause", "orders").stdout == "paused: orders:0, orders:1\n"
    assert run(settings, "resume", "orders", "1").stdout == "resumed: orders:1\n"
    with psycopg.connect(settings["VIEWKEEPER_DATABASE_URL"]) as connection:
        paused = connection.execute(
            "SELECT topic, partition FROM build_1.positions WHERE paused"
        ).fetchall()
    assert paused == [("orders", 0)]
    assert "paused" in run(settings, "status").stdout
    assert "orders, payments" in run(settings, "pause", "shipments", code=2).stderr


def test_contracts_are_registered_and_checked(settings: Environment, servers: Servers) -> None:
    registered = as_json(settings, "schemas", "register")
    assert [entry["subject"] for entry in registered] == ["orders-value", "payments-value"]
    assert {entry["compatibility"] for entry in registered} == {"FULL"}
    assert registered == as_json(settings, "schemas", "register")
    assert "orders-value" in run(settings, "schemas", "register").stdout
    assert "orders.avsc: may be registered" in run(settings, "schemas", "check").stdout


@pytest.mark.parametrize(
    ("variable", "value", "command"),
    [
        ("VIEWKEEPER_DATABASE_URL", "postgresql://u:s3cret@127.0.0.1:1/x", "status"),
        ("VIEWKEEPER_DATABASE_URL", "postgresql://u:s3cret@127.0.0.1:1/x", "dead-letters list"),
        ("VIEWKEEPER_SCHEMA_REGISTRY_URL", "http://u:s3cret@127.0.0.1:1", "schemas register"),
    ],
)
def test_a_server_that_is_away_is_one_sentence_without_the_password(
    settings: Environment, variable: str, value: str, command: str
) -> None:
    done = run(settings | {variable: value}, *command.split(), code=1)
    assert "127.0.0.1" in done.stderr
    assert "s3cret" not in done.output
    assert "Traceback" not in done.output


def test_a_database_without_tables_is_told_to_migrate(
    settings: Environment, empty_database: Database
) -> None:
    done = run(settings | {"VIEWKEEPER_DATABASE_URL": empty_database.dsn}, "status", code=1)
    assert "alembic upgrade head" in done.stderr


@pytest.mark.parametrize(
    ("position", "told"),
    [
        ("orders:0:0,orders:7:10", "the broker has no partition orders:7"),
        ("orders:0:0@00000000", "is of generation 00000000"),
    ],
)
def test_a_position_of_another_log_is_not_waited_for(
    settings: Environment, position: str, told: str
) -> None:
    assert told in run(settings, "ingest", "--until", position, code=2).stderr


def test_a_worker_asked_to_stop_before_its_position_says_that_it_is_not_there(
    settings: Environment,
) -> None:
    command = [sys.executable, "-m", "cli.main", "ingest", "--until", "orders:1:99999"]
    with subprocess.Popen(command, env=dict(settings), stderr=subprocess.PIPE, text=True) as worker:
        try:
            eventually(lambda: _owned(settings), TIMEOUT_S, "the worker is at work")
            worker.send_signal(signal.SIGTERM)
            said = worker.communicate(timeout=TIMEOUT_S)[1]
        finally:
            worker.kill()
    assert worker.returncode == 1, said
    assert "stopped before orders:1:99999 was reached" in said


def _owned(settings: Environment) -> bool:
    [build] = as_json(settings, "status")["builds"]
    return all(line["owner"] for line in build["partitions"])


def test_a_worker_asked_to_stop_leaves_with_code_0(settings: Environment) -> None:
    run(settings, "produce", "--orders", "5")
    worker = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "ingest"], env=dict(settings), stderr=subprocess.PIPE
    )
    try:
        eventually(
            lambda: as_json(settings, "status")["caught_up"], TIMEOUT_S, "the worker has it all"
        )
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(TIMEOUT_S) == 0
    finally:
        worker.kill()
        worker.communicate()


def test_a_worker_that_is_asked_says_where_its_threads_are_and_goes_on(
    settings: Environment, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "cli.main", "ingest"]
    said = tmp_path / "said"
    with (
        said.open("wb") as log,
        subprocess.Popen(command, env=dict(settings), stderr=log) as worker,
    ):
        try:
            eventually(lambda: _owned(settings), TIMEOUT_S, "the worker is at work")
            worker.send_signal(signal.SIGUSR1)
            eventually(lambda: "in _loop" in said.read_text(), TIMEOUT_S, "the main thread is told")
            run(settings, "produce", "--orders", "5")
            eventually(
                lambda: as_json(settings, "status")["caught_up"], TIMEOUT_S, "the worker has it all"
            )
        finally:
            worker.kill()
