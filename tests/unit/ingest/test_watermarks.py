"""Questions to the broker while the leader of a partition changes.

The moment between the controller's word and the new leader's own can't be had on demand from a
real broker, so its answers are written here.
"""

from concurrent.futures import Future
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo

from ingest.errors import TransientError
from ingest.watermarks import high_watermarks


class _Admin:
    """Answers with these errors, one for each question, and then with the end."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    def list_offsets(
        self, asked: dict[TopicPartition, object], **_options: object
    ) -> dict[TopicPartition, "Future[Any]"]:
        future: Future[Any] = Future()
        if self.errors:
            future.set_exception(KafkaException(KafkaError(self.errors.pop(0))))
        else:
            future.set_result(ListOffsetsResultInfo(7, -1, 0))
        return dict.fromkeys(asked, future)


def _ends(admin: _Admin, timeout_s: float) -> dict[tuple[str, int], int]:
    return high_watermarks(cast("AdminClient", admin), [("orders", 0)], timeout_s)


@pytest.mark.parametrize(
    "error", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE]
)
def test_an_election_is_waited_for(error: int) -> None:
    assert _ends(_Admin(error, error), timeout_s=10) == {("orders", 0): 7}


def test_an_election_is_not_waited_for_beyond_the_time() -> None:
    with pytest.raises(TransientError, match="Not leader for partition"):
        _ends(_Admin(*[KafkaError.NOT_LEADER_FOR_PARTITION] * 9), timeout_s=0.2)


def test_another_error_is_told_at_once() -> None:
    admin = _Admin(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(TransientError, match="authorization"):
        _ends(admin, timeout_s=10)
    assert not admin.errors
