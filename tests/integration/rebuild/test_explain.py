"""`viewkeeper explain order ID`: every event behind a row, and the row they add up to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from tests.faults.oracle.compare import hold
from tests.faults.oracle.fold import Expected, Trace, expect
from tests.faults.oracle.log import Registry, read_log
from tests.fixtures.databases import Database
from tests.integration.rebuild.parts import TOPICS, Log, execute, offsets


@pytest.fixture(scope="module")
def expected(log: Log, read: Database) -> Expected:
    """What the oracle knows of the log that was read."""
    held = hold(read.dsn, "build_1")
    records, pinned = read_log(log.bootstrap, TOPICS, until=held.next_offsets)
    return expect(records, Registry(log.registry), next_offsets=pinned, recorded=held.recorded)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a file of settings."""
    monkeypatch.chdir(tmp_path)


def explain(log: Log, database: Database, *arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(
        app, ["explain", "order", *arguments], env=dict(log.environment(database))
    )
    assert done.exit_code == code, done.output
    return done


def explained(log: Log, database: Database, order_id: str, *, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(explain(log, database, order_id, "--json", code=code).stdout)
    return found


def kind(trace: Trace) -> str:
    """An outcome of the oracle in the words of the command."""
    if not trace.outcome.startswith("dead"):
        return trace.outcome
    return "conflict" if "VERSION_CONFLICT" in trace.outcome else "dead"


def one_order_of_each_kind(expected: Expected) -> dict[str, str]:
    """Orders that together have met everything that can become of an event."""
    found: dict[str, str] = {}
    for order_id, traces in sorted(expected.history.items()):
        kinds = {f"{trace.topic} {kind(trace)}" for trace in traces}
        if "" not in kinds and order_id:
            for name in kinds:
                found.setdefault(name, order_id)
        if len(traces) > 60:
            found.setdefault("a hot one", order_id)
    never = sorted(key[0] for key, row in expected.views.orders.items() if row["version"] == 0)
    return {**found, "known from a payment": never[0]}


@pytest.mark.usefixtures("folder")
def test_each_event_is_named_with_its_place_and_what_became_of_it(
    log: Log, shop: Database, expected: Expected
) -> None:
    chosen = one_order_of_each_kind(expected)
    assert chosen.keys() >= {
        "orders applied",
        "orders superseded",
        "orders duplicate",
        "orders conflict",
        "orders tombstone",
        "orders dead",
        "payments applied",
        "payments conflict",
        "known from a payment",
    }
    for order_id in sorted(set(chosen.values())):
        answer = explained(log, shop, order_id)
        seen = {(e["topic"], e["partition"], e["offset"]): e["outcome"] for e in answer["events"]}
        due = {(t.topic, t.partition, t.offset): kind(t) for t in expected.events_of(order_id)}
        assert seen == due, order_id
        assert answer["equal"] is True
        places = [(e["topic"], e["partition"], e["offset"]) for e in answer["events"]]
        for partition in {place[:2] for place in places}:
            mine = [place for place in places if place[:2] == partition]
            assert mine == sorted(mine)
        assert all(row["stored"] == row["from_log"] for row in answer["rows"])
        assert _changes_make_the_rows(answer), order_id


def _changes_make_the_rows(answer: Mapping[str, Any]) -> bool:
    """The changes, one after the other, end at what is stored."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for event in answer["events"]:
        for change in event["changes"]:
            row = rows.setdefault((change["view"], *change["key"]), {})
            assert row.get(change["column"]) == change["before"]
            row[change["column"]] = change["after"]
    for row in answer["rows"]:
        made = rows[row["view"], *row["key"]]
        if any(row["from_log"][column] != value for column, value in made.items()):
            return False
    return True


@pytest.mark.usefixtures("folder")
def test_it_reads_every_partition_and_says_so(log: Log, shop: Database, expected: Expected) -> None:
    order_id = sorted(key[0] for key in expected.views.orders)[0]
    answer = explained(log, shop, order_id)
    assert len(answer["scanned"]) == 6
    read = {(s["topic"], s["partition"]): s["end"] for s in answer["scanned"]}
    assert all(read[place] >= end for place, end in offsets(shop, "build_1").items())
    told = explain(log, shop, order_id).stdout
    assert "of 6 partitions" in told
    assert "its rows hold what these events add up to" in told
    assert str(answer["events"][0]["schema_id"]) in told


@pytest.mark.usefixtures("folder")
def test_a_row_that_is_something_else_is_shown_beside_what_it_must_be(
    log: Log, shop: Database, expected: Expected
) -> None:
    order_id = sorted(
        key[0] for key, row in expected.views.orders.items() if row["visible"] is True
    )[0]
    execute(
        shop,
        f"UPDATE build_1.orders SET amount = amount + 0.01 WHERE order_id = '{order_id}'",
    )
    answer = explained(log, shop, order_id, code=1)
    (wrong,) = [row for row in answer["rows"] if row["differs"]]
    assert (wrong["view"], wrong["key"]) == ("orders", [order_id])
    assert "amount" in wrong["differs"]
    told = explain(log, shop, order_id, code=1).stdout
    assert f"viewkeeper rebuild --order {order_id}" in told
    assert "<- differs" in told
    mended = CliRunner().invoke(
        app, ["rebuild", "--order", order_id], env=dict(log.environment(shop))
    )
    assert mended.exit_code == 0, mended.output
    assert explained(log, shop, order_id)["equal"] is True


@pytest.mark.usefixtures("folder")
def test_an_event_behind_the_position_of_the_views_is_waiting(log: Log, shop: Database) -> None:
    log.produce(seed=201, orders=1, poison=0.0)
    answer = explained(log, shop, "order-201-0000000", code=0)
    assert {event["outcome"] for event in answer["events"]} == {"waiting"}
    assert answer["rows"] == []


@pytest.mark.usefixtures("folder")
def test_an_order_that_nobody_knows_is_said_in_a_sentence(log: Log, shop: Database) -> None:
    done = explain(log, shop, "no-such-order", code=1)
    assert "no event of order 'no-such-order' is in the log" in done.stderr
    assert "6 partitions were read" in done.stderr
    explain(log, shop, code=2)
