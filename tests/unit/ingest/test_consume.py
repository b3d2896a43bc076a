"""How a message of the client becomes a record, whatever its producer wrote around the event."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from ingest.consume import _record
from ingest.errors import Fault, Reason
from ingest.records import EARLIEST_MS, LATEST_MS, Dead
from ingest.write import _dead_row


class Message:
    """A message of the client with any record timestamp."""

    def __init__(self, at_ms: int) -> None:
        self._at_ms = at_ms

    def timestamp(self) -> tuple[int, int]:
        return 1, self._at_ms

    def topic(self) -> str:
        return "orders"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def nothing(self) -> None:
        return None

    key = value = headers = leader_epoch = nothing


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (1_735_689_600_123, 1_735_689_600_123),
        (-1, -1),
        (10**16, LATEST_MS),
        (2**63 - 1, LATEST_MS),
        (-(2**63), EARLIEST_MS),
    ],
)
def test_any_timestamp_of_a_record_can_be_kept(written: int, kept: int) -> None:
    record = _record(cast(Any, Message(written)))
    assert record.timestamp_ms == kept
    dead = Dead(record, Fault(Reason.EMPTY, "empty"), None, 3)
    expected = datetime.fromtimestamp(kept / 1000, UTC)
    assert expected in _dead_row(dead, {"orders": "an id"})
