"""What the log still has: what is gone from it, and what compaction may have dropped."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import pytest

from ingest.claim import BrokerView
from ingest.consume import Log
from ingest.errors import RefusedError
from ingest.settings import IngestSettings
from rebuild import checks
from views.positions import Partition

LOWS: dict[Partition, int] = {("orders", 0): 7, ("payments", 0): 5}
SETTINGS = cast(IngestSettings, None)  # nothing is asked of it: no broker is


@dataclass(frozen=True, slots=True)
class ShortLog:
    """A log whose partitions begin behind 0."""

    lows: dict[Partition, int]

    def refuse_compacted(self, *_: object) -> None:
        """None is."""

    def all_partitions(self, _timeout_s: float) -> Iterable[Partition]:
        """Those that are there."""
        return self.lows

    def describe(self, _partitions: object, _timeout_s: float) -> dict[Partition, BrokerView]:
        """What the broker says of them."""
        return {p: broker_view(low) for p, low in self.lows.items()}


def broker_view(low: int) -> BrokerView:
    """A partition that begins there."""
    return BrokerView(cluster_id="one", topic_id="id", low=low, high=9)


@pytest.fixture
def compacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """`orders` is compacted by key; what that dropped is replaced by newer events."""
    monkeypatch.setattr(checks, "_compacted", lambda _settings, topic: topic == "orders")


@pytest.mark.usefixtures("compacted")
def test_what_compaction_dropped_is_not_missing() -> None:
    log = cast(Log, ShortLog({("orders", 0): 7}))
    start = checks.look(SETTINGS, log, accept_missing=False)
    assert start.begins == {("orders", 0): 7}
    assert (start.missing, start.notes) == ({}, [])


@pytest.mark.usefixtures("compacted")
def test_what_is_missing_is_refused_or_noted_and_nothing_else() -> None:
    log = cast(Log, ShortLog(LOWS))
    with pytest.raises(RefusedError, match=r"^5 events are gone from the log \(payments:0 begins"):
        checks.look(SETTINGS, log, accept_missing=False)
    start = checks.look(SETTINGS, log, accept_missing=True)
    assert start.begins == LOWS
    (note,) = start.notes
    assert note.startswith("5 events")
    assert "orders" not in note
