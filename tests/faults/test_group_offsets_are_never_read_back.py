"""The group's offsets say something else than the rows: the rows are what counts."""

from __future__ import annotations

from typing import Final

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from tests.faults.harness.ground import Ground
from tests.faults.oracle import high_watermarks
from tests.fixtures.waiting import PATIENCE_S, eventually
from views import CATALOGUE

MOVED: Final = "group offset moved away from the stored position"


def _move(ground: Ground, share: float) -> int:
    """Set the group's offsets to a part of the log; how many differ from the positions then."""
    ends = high_watermarks(ground.place.bootstrap, CATALOGUE.topics)
    moved = {place: int(end * share) for place, end in ends.items()}
    offsets = [TopicPartition(*place, offset) for place, offset in moved.items()]
    wanted = ConsumerGroupTopicPartitions(ground.place.group, offsets)
    admin = ground.admin()  # must outlive the call: its end cancels what it was asked

    def altered() -> bool:
        """Only a group without members lets its offsets be set."""
        try:
            (done,) = admin.alter_consumer_group_offsets([wanted]).values()
            return all(one.error is None for one in done.result().topic_partitions)
        except KafkaException:
            return False

    eventually(altered, PATIENCE_S, "the group's offsets are set")
    stored = ground.positions()
    return sum(stored.get(place, 0) != offset for place, offset in moved.items())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_worker_goes_on_from_its_rows_whatever_the_group_says(
    ground: Ground, share: float
) -> None:
    ground.send(ground.traffic(40, seed=83))
    worker = ground.worker()
    ground.wait_until_in()
    assert worker.stop() == 0
    ground.send(ground.traffic(40, seed=84, prefix="later"))
    ground.bites.bit(MOVED, _move(ground, share))
    worker.start()
    ground.must_be_right()
