"""The watch beside the worker doubts what it owns as soon as the log is another one, or shorter."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from ingest import service, watermarks
from ingest.claim import BrokerView, Observation
from ingest.errors import RefusedError
from ingest.service import _Watch
from ingest.status import Status
from tests.fixtures.waiting import eventually
from views import CATALOGUE
from views.positions import Partition

_MINE = (CATALOGUE.topics[0], 0)


class Broker:
    """One partition of each topic; its life, its end and its policy may be changed."""

    life, high = "first life", 10
    compaction: str | None = None
    reached = True

    def reaches(self, _timeout_s: float) -> bool:
        return self.reached

    def all_partitions(self, _timeout_s: float) -> tuple[Partition, ...]:
        return tuple((topic, 0) for topic in CATALOGUE.topics)

    def describe(
        self, partitions: Iterable[Partition], _timeout_s: float
    ) -> dict[Partition, BrokerView]:
        view = BrokerView(
            cluster_id="c", topic_id=self.life, low=0, high=self.high, compaction=self.compaction
        )
        return dict.fromkeys(partitions, view)

    def ends(self, partitions: Iterable[Partition], _timeout_s: float) -> dict[Partition, int]:
        return dict.fromkeys(partitions, self.high)


class Rows:
    """The database: its rows were made in the first life of the topics."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def ensure_rows(self, brokers: Mapping[Partition, BrokerView]) -> set[Partition]:
        return {p for p, broker in brokers.items() if broker.topic_id != "first life"}

    def held(self) -> set[Partition]:
        return set()

    def builds(self) -> tuple[()]:
        return ()


class Owner:
    """A worker that has read one partition up to 10."""

    def __init__(self) -> None:
        self.seen, self.doubted = 0, set[Partition]()
        self.owned = {_MINE: 10}

    def positions(self) -> dict[Partition, int]:
        return self.owned

    def observe(self, _ends: Mapping[Partition, Observation]) -> None:
        self.seen += 1

    def doubt(self, partitions: Collection[Partition]) -> None:
        self.doubted |= set(partitions)

    def hold(self, _paused: Collection[Partition]) -> None:
        return


class Parts:
    """What the watch is given."""

    def __init__(self) -> None:
        self.kafka, self.beside, self.worker = Broker(), Rows(), Owner()
        self.status = Status()
        self.admin_options: Mapping[str, str] = {}


@pytest.mark.parametrize(
    "changed", [{"life": "second life"}, {"high": 9}, {"compaction": "compact"}], ids=str
)
def test_another_log_or_a_shorter_or_compacted_one_is_doubted_at_the_next_look(
    changed: dict[str, Any],
) -> None:
    parts = Parts()
    watch = _Watch(cast(Any, parts), threading.Event())

    def looked(times: int) -> bool:
        watch.hand_over()
        return parts.worker.seen >= times

    with watch:
        eventually(lambda: looked(2), 10, "it looked twice")
        assert not parts.worker.doubted
        for name, value in changed.items():
            setattr(parts.kafka, name, value)
        eventually(lambda: looked(4), 10, "it looked again")
    assert _MINE in parts.worker.doubted


def test_what_ends_the_look_out_ends_the_worker() -> None:
    """Without it, nobody would hear of a pause, and freshness would stand still."""

    class Forbidden(Rows):
        def held(self) -> set[Partition]:
            raise RefusedError("the database refuses this login")

    parts = Parts()
    parts.beside = Forbidden()
    watch = _Watch(cast(Any, parts), threading.Event())

    def ended() -> bool:
        try:
            watch.hand_over()
        except RefusedError:
            return True
        return False

    with watch:
        eventually(ended, 10, "the refusal came to the worker's thread")


@pytest.mark.parametrize("others_reach_it", [True, False])
def test_clients_that_lost_every_broker_end_the_worker_where_a_new_one_finds_them(
    monkeypatch: pytest.MonkeyPatch, *, others_reach_it: bool
) -> None:
    asked = threading.Semaphore(0)

    def answers(*_given: object) -> bool:
        asked.release()
        return others_reach_it

    monkeypatch.setattr(service, "STRANDED_S", 0.5)
    monkeypatch.setattr(service, "IDLE_S", 0.0)
    monkeypatch.setattr(watermarks, "answers", answers)
    parts = Parts()
    parts.kafka.reached = False
    parts.worker.owned = {}
    watch = _Watch(cast(Any, parts), threading.Event())
    with watch:
        for _ in range(2):
            assert asked.acquire(timeout=10)
        if others_reach_it:
            with pytest.raises(RefusedError, match="start this worker again"):
                eventually(watch.hand_over, 10, "the worker is ended")
        else:
            watch.hand_over()
