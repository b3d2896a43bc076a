"""The worker's page on fakes that do at once what they are told: what bounds a batch, when it is
ready, when it is through."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, cast

import pytest

from ingest.claim import BrokerView, Claimed, Observation
from ingest.errors import TransientError
from ingest.fold import Folded
from ingest.records import Event, Item, Made, Record
from ingest.status import Status
from ingest.worker import FIRST_ROWS, READ_AT_ONCE, Limits, Worker
from tests.faults.simulator.world import VIEWS, quiet
from views.positions import Partition, PositionVector

ORDERS: Partition = ("orders", 0)
PAYMENTS: Partition = ("payments", 0)


class Topics:
    """`LogPort`: gives what it holds, as much as it is asked for."""

    def __init__(self) -> None:
        self.waiting: list[Record] = []
        self.assigned: Callable[[Collection[Partition]], None]
        self.revoked: Callable[[Collection[Partition]], None]
        self.lost: Callable[[Collection[Partition]], None]
        self.must_stop: Callable[[Partition], None]
        self.down = False

    def fill(self, count: int, size_bytes: int = 100) -> None:
        first = len(self.waiting)
        for offset in range(first, first + count):
            self.waiting.append(Record(*ORDERS, offset, b"", b"x" * size_bytes, (), 0, 0))

    def poll(self, limit: int, timeout_s: float) -> list[Record]:
        given, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return given

    def describe(
        self, partitions: Collection[Partition], timeout_s: float
    ) -> dict[Partition, BrokerView]:
        if self.down:
            raise TransientError("the broker is away")
        view = BrokerView(cluster_id="c", topic_id="t", low=0, high=0)
        return dict.fromkeys(partitions, view)

    def positions(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        return {}

    def nothing(self, *_given: object) -> None:
        return None

    start = drop = pause = resume = commit_async = nothing


class Rows:
    """`StorePort`: commits at once, and remembers each batch."""

    def __init__(self) -> None:
        self.batches: list[list[Event]] = []

    def claim(
        self, brokers: Mapping[Partition, BrokerView], still_mine: Mapping[Partition, int]
    ) -> dict[Partition, Claimed]:
        return {p: Claimed(epoch=1, next_offset=0, paused=False) for p in brokers}

    def write(
        self,
        folded: Folded,
        epochs: Mapping[Partition, int],
        ends: Mapping[Partition, Observation],
    ) -> "Future[None]":
        changes = folded.changes.values()
        self.batches.append([e for c in changes for events in c.events.values() for e in events])
        return done()

    def observe(self, ends: object, epochs: object) -> "Future[None]":
        return done()

    def sizes(self) -> list[int]:
        return [sum(len(e.record.value or b"") for e in batch) for batch in self.batches]


def done() -> "Future[None]":
    future: Future[None] = Future()
    future.set_result(None)
    return future


class Reader:
    """`DecoderPort`: every record is an order of its own."""

    def decode(self, records: Sequence[Record]) -> list[Item]:
        return [Event(r, (r.offset,), 1, 1, Made([(r.offset, 1)]), 0) for r in records]

    def decode_again(self, items: list[Item], *, afresh: bool) -> bool:
        return False


class Scene:
    """A worker that owns nothing yet, and everything around it."""

    def __init__(self, *, size_bytes: int = 10**9, until: PositionVector | None = None) -> None:
        self.topics, self.rows, self.status, self.now_s = Topics(), Rows(), Status(), 0.0
        self.worker = Worker(
            log=cast(Any, self.topics),
            store=cast(Any, self.rows),
            decoder=Reader(),
            views=VIEWS,
            clock=lambda: self.now_s,
            limits=Limits(rows=100_000, size_bytes=size_bytes, linger_s=0.2, retry_pause_s=0.0),
            status=self.status,
            until=until,
        )

    def steps(self, count: int = 1) -> None:
        with quiet():
            for _ in range(count):
                self.worker.step()

    def assign(self, *partitions: Partition) -> None:
        with quiet():
            self.topics.assigned(partitions)

    @property
    def counts(self) -> list[int]:
        return [len(batch) for batch in self.rows.batches]


def test_bytes_bound_a_batch_however_much_comes_at_once() -> None:
    scene = Scene(size_bytes=10_000)
    scene.assign(ORDERS)
    scene.topics.fill(250, size_bytes=1_000)
    scene.steps(60)
    assert max(scene.rows.sizes()) == 10_000
    assert [e.record.offset for batch in scene.rows.batches for e in batch] == list(range(250))


def test_a_record_larger_than_a_batch_goes_alone() -> None:
    scene = Scene(size_bytes=1_500)
    scene.assign(ORDERS)
    scene.topics.fill(3, size_bytes=2_000)
    scene.steps(10)
    assert scene.counts == [1, 1, 1]


def test_records_bound_a_batch_and_each_may_be_twice_the_one_before() -> None:
    scene = Scene()
    scene.assign(ORDERS)
    scene.topics.fill(20_000)
    scene.steps(30)
    assert scene.counts[:3] == [FIRST_ROWS, 2 * FIRST_ROWS, 4 * FIRST_ROWS]


def test_time_bounds_a_batch_that_goes_on_filling() -> None:
    scene = Scene()
    scene.assign(ORDERS)
    scene.topics.fill(FIRST_ROWS + 2 * READ_AT_ONCE + 1)
    scene.steps(4)
    assert scene.counts == [FIRST_ROWS]  # the next one may be larger, and more is coming
    scene.now_s += 0.2
    scene.steps(1)
    assert len(scene.counts) == 2
    assert READ_AT_ONCE <= scene.counts[1] < 2 * FIRST_ROWS


def test_a_worker_waits_for_its_first_assignment_and_may_be_given_nothing() -> None:
    scene = Scene()
    scene.steps()
    assert scene.status.problems() == ["the first assignment"]
    scene.assign()
    assert scene.status.problems() == []


def test_a_worker_is_ready_once_it_has_read_where_its_partitions_stand() -> None:
    scene = Scene()
    scene.assign(ORDERS)
    assert scene.status.problems() == ["the first assignment"]
    scene.steps()
    assert scene.status.problems() == []
    assert scene.status.owned == 1


@pytest.mark.parametrize("how", ["revoked", "lost"])
@pytest.mark.parametrize("claimed", [True, False])
def test_a_worker_that_loses_all_its_partitions_stays_ready(*, how: str, claimed: bool) -> None:
    scene = Scene()
    scene.assign(ORDERS, PAYMENTS)
    scene.steps(int(claimed))
    with quiet():
        getattr(scene.topics, how)([ORDERS, PAYMENTS])
    assert scene.status.problems() == []
    assert scene.status.owned == 0


def test_an_assignment_of_nothing_does_not_hide_an_outage() -> None:
    scene = Scene()
    scene.topics.down = True
    scene.assign(ORDERS)
    scene.steps()
    scene.assign()
    assert scene.status.problems() == ["the broker is away"]


def test_a_worker_is_through_when_all_that_it_owns_is_and_not_before_it_knows_what() -> None:
    scene = Scene(until=PositionVector({ORDERS: 3}))
    assert not scene.worker.finished()
    scene.assign(ORDERS, PAYMENTS)
    assert not scene.worker.finished()
    scene.topics.fill(5)
    scene.steps(5)
    assert scene.worker.finished()
    assert scene.worker.positions() == {ORDERS: 3, PAYMENTS: 0}
    assert [e.record.offset for e in scene.rows.batches[0]] == [0, 1, 2]


def test_a_spare_worker_leaves_it_to_the_others_to_be_through() -> None:
    scene = Scene(until=PositionVector({ORDERS: 3}))
    scene.assign()
    assert scene.worker.finished()
