"""Orders that were removed, come back, or moved to another partition: the same in every build."""

import json
import random
import threading
from typing import Final

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from cli.main import app
from rebuild import builder, run
from rebuild.report import Options
from tests.fixtures.content import Writer, order_content
from tests.fixtures.databases import Database
from tests.fixtures.traffic import START_MS
from tests.integration.rebuild.parts import (
    Log,
    Watcher,
    content,
    value,
    wait_until_live_includes,
    worker,
)

# Partition, version (None: a tombstone), and seconds of the record's timestamp.
Told = tuple[int, int | None, int]
STORIES: dict[str, tuple[bool, tuple[Told, ...]]] = {
    "removed": (False, ((0, 1, 1), (0, None, 2))),
    "late-after-removal": (False, ((0, 2, 1), (0, None, 2), (0, 1, 3))),
    "brought-back": (True, ((0, 1, 1), (0, None, 2), (0, 2, 3))),
    "removed-twice": (False, ((0, 1, 1), (0, None, 2), (0, 2, 3), (0, None, 4))),
    "removed-elsewhere": (False, ((0, 1, 1), (2, 2, 3), (1, None, 5))),
    "back-after-removal-elsewhere": (True, ((0, 1, 1), (1, None, 5), (2, 2, 9))),
    "removed-before-it-came": (True, ((0, None, 1), (0, 1, 2))),
    "only-removed": (False, ((1, None, 1),)),
}
"""By order: whether it is shown in the end, and what was told of it."""
FEW: Final = 3
"""Events of a batch: so few that no story is told in one."""


def tell(log: Log, *, backwards: bool) -> None:
    """Tell the stories, partition by partition, so that tombstones elsewhere come last or first."""
    write = Writer(log.ids)
    producer = Producer({"bootstrap.servers": log.bootstrap, "log_level": 0})
    told = [
        (partition, name, version, at_s)
        for name, (_, story) in STORIES.items()
        for partition, version, at_s in story
    ]
    for partition, name, version, at_s in sorted(told, key=lambda each: each[0], reverse=backwards):
        event = order_content(random.Random(name), name, customers=9) | {"version": version}
        producer.produce(
            "orders",
            None if version is None else write("orders", event),
            name.encode(),
            partition=partition,
            timestamp=START_MS + at_s * 1_000,
        )
        # One by one, so that a live worker meets them in this order.
        assert producer.flush(30) == 0


def shown(database: Database, build: str) -> set[str]:
    names = value(
        database,
        f"SELECT coalesce(json_agg(order_id), '[]') FROM {build}.orders"
        " WHERE visible AND order_id = ANY (%s)",
        list(STORIES),
    )
    return set(names)


def test_hidden_orders_are_the_same_in_both_builds(
    log: Log, shop: Database, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    expected = {name for name, (is_shown, _) in STORIES.items() if is_shown}
    with worker(settings):
        tell(log, backwards=True)
        wait_until_live_includes(shop, log.end())
    assert shown(shop, "build_1") == expected
    report = run.rebuild(settings, Options(), watcher, stop)
    assert report.ok, report.result
    assert shown(shop, report.build) == expected
    assert content(shop, report.build) == content(shop, "build_1")
    monkeypatch.setattr(builder, "BULK_ROWS", FEW)  # a story in one batch is another one in several
    few = settings.model_copy(update={"batch_rows": FEW})
    assert run.verify(few, Options(), watcher, stop).ok
    assert run.verify(settings, Options(processes=2), watcher, stop).ok  # partitions apart
    with worker(settings):  # the same again, the other way round
        tell(log, backwards=False)
        wait_until_live_includes(shop, log.end())
    assert run.verify(settings, Options(), watcher, stop).ok
    assert log.judge(shop, report.build) == []
    moved = CliRunner().invoke(
        app,
        ["explain", "order", "back-after-removal-elsewhere", "--json"],
        env=dict(log.environment(shop)),
    )
    assert moved.exit_code == 0, moved.output
    answer = json.loads(moved.stdout)
    assert answer["equal"] is True
    assert any("several partitions" in note for note in answer["notes"])
