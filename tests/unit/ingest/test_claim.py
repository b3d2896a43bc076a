"""What is refused before a position is read on from: each cause has its name and its remedy."""

from dataclasses import replace

import pytest

from ingest.claim import BrokerView, refusal

PARTITION = ("orders", 3)
BROKER = BrokerView(cluster_id="ours", topic_id="first", low=10, high=20)


def _refusal(next_offset: int, broker: BrokerView = BROKER) -> str | None:
    row = {"next_offset": next_offset, "cluster_id": "ours", "topic_id": "first"}
    return refusal(PARTITION, row, broker)


@pytest.mark.parametrize("next_offset", [10, 15, 20])
def test_a_position_within_the_log_is_read_on_from(next_offset: int) -> None:
    assert _refusal(next_offset) is None


def test_a_row_that_knows_no_cluster_and_no_topic_yet_takes_what_comes() -> None:
    row = {"next_offset": 10, "cluster_id": None, "topic_id": None}
    assert refusal(PARTITION, row, BROKER) is None


@pytest.mark.parametrize(
    ("next_offset", "broker", "word"),
    [
        (15, replace(BROKER, cluster_id="theirs"), "Another cluster"),
        (15, replace(BROKER, topic_id="second"), "Recreated topic"),
        (9, BROKER, "Retention gap"),
        (21, BROKER, "Log shorter than views"),
        (15, replace(BROKER, compaction="compact,delete"), "Compacted topic"),
    ],
)
def test_a_position_that_means_something_else_is_refused_with_the_remedy(
    next_offset: int, broker: BrokerView, word: str
) -> None:
    reason = _refusal(next_offset, broker)
    assert reason is not None
    assert "orders" in reason
    assert f'docs/operating.md, "{word}"' in reason
