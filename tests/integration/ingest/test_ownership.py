"""Ownership in the database: who may say how fresh a position is, and who is in the way."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import pytest

from ingest import claim as ownership
from ingest.claim import BrokerView, Claimed, Observation, claim, note_ends, observe
from ingest.connect import APPLICATION, Session
from ingest.errors import Fault, FencedError, Reason
from ingest.fold import Advance, Folded, fold
from ingest.records import Dead, Record
from ingest.write import write
from tests.fixtures.databases import Database
from tests.integration.ingest.running import BUILD, query
from views import CATALOGUE
from views.positions import Partition

_BROKER = BrokerView(cluster_id="cluster", topic_id="topic", low=0, high=9)
_OURS: Partition = ("orders", 0)
_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _epoch(session: Session) -> int:
    claimed = claim(session, {_OURS: _BROKER})[_OURS]
    assert isinstance(claimed, Claimed)
    return claimed.epoch


def _seen(dsn: str) -> tuple[Any, ...]:
    (row,) = query(dsn, f"SELECT end_offset, complete_as_of FROM {BUILD}.positions")
    return row


def test_a_position_is_complete_as_of_a_time_only_once_the_end_seen_then_is_reached(
    session: Session, database: Database
) -> None:
    epochs = {_OURS: _epoch(session)}
    observe(session, {_OURS: Observation(9, _NOON)}, epochs)
    assert _seen(database.dsn) == (9, None)
    query(database.dsn, f"UPDATE {BUILD}.positions SET next_offset = 9")
    observe(session, {_OURS: Observation(9, _NOON)}, epochs)
    assert _seen(database.dsn) == (9, _NOON)
    observe(session, {_OURS: Observation(9, _NOON - timedelta(hours=1))}, epochs)
    assert _seen(database.dsn) == (9, _NOON)


def test_who_was_replaced_says_nothing_of_freshness_and_learns_of_it(
    session: Session, database: Database
) -> None:
    old = {_OURS: _epoch(session)}
    _epoch(session)
    with pytest.raises(FencedError):
        observe(session, {_OURS: Observation(0, _NOON)}, old)
    assert _seen(database.dsn) == (None, None)


def test_a_batch_notes_no_end_of_a_partition_that_it_does_not_move_and_lost(
    session: Session, database: Database
) -> None:
    old = {_OURS: _epoch(session)}
    _epoch(session)
    with session.transaction() as connection:
        note_ends(connection, session.build, {_OURS: Observation(0, _NOON)}, old)
    assert _seen(database.dsn) == (None, None)


def _dead_in(partitions: Iterable[Partition]) -> Folded:
    """A batch with the first record of each of these partitions, none of them an event."""
    fault = Fault(Reason.BAD_MAGIC, "not framed")
    return fold(
        [Dead(Record(*p, 0, b"key", b"value", (), 0, 0), fault, None, 1) for p in partitions],
        advances={partition: Advance(0, 1) for partition in partitions},
        views={v.stream.topic: v.name for v in CATALOGUE.stream_views},
    )


def _stand(dsn: str) -> dict[Partition, tuple[int, int]]:
    """Per partition its position, and how many dead records it counts."""
    rows = query(dsn, f"SELECT topic, partition, next_offset, dead FROM {BUILD}.positions")
    return {(topic, partition): (at, dead) for topic, partition, at, dead in rows}


_SEVERAL: Final[tuple[Partition, ...]] = (("payments", 0), ("orders", 1), ("orders", 0))
_TOPICS: Final = {"orders": "topic", "payments": "topic"}


def _epochs(session: Session) -> Mapping[Partition, int]:
    claimed = claim(session, dict.fromkeys(_SEVERAL, _BROKER))
    return {place: found.epoch for place, found in claimed.items() if isinstance(found, Claimed)}


def test_a_batch_moves_each_of_its_partitions(session: Session, database: Database) -> None:
    write(session, _dead_in(_SEVERAL), epochs=_epochs(session), topic_ids=_TOPICS, ends={})
    assert _stand(database.dsn) == dict.fromkeys(_SEVERAL, (1, 1))


@pytest.mark.parametrize(
    "lost",
    ["owner_epoch = owner_epoch + 1", "next_offset = next_offset + 1"],
    ids=["epoch", "offset"],
)
def test_one_partition_that_is_lost_fences_all_and_is_named(
    lost: str, session: Session, database: Database
) -> None:
    epochs = _epochs(session)
    one = "(topic, partition) = ('orders', 1)"
    query(database.dsn, f"UPDATE {BUILD}.positions SET {lost} WHERE {one}")
    before = _stand(database.dsn)
    with pytest.raises(FencedError) as fenced:
        write(session, _dead_in(_SEVERAL), epochs=epochs, topic_ids=_TOPICS, ends={})
    assert fenced.value.partitions == (("orders", 1),)
    assert _stand(database.dsn) == before
    assert query(database.dsn, "SELECT id FROM ingest.dead_letters") == []


def test_a_batch_of_an_owner_that_was_replaced_leaves_nothing(
    session: Session, database: Database
) -> None:
    """Rows are safe by their versions; dead letters and sums rest on the fence alone."""
    old = {_OURS: _epoch(session)}
    _epoch(session)
    with pytest.raises(FencedError):
        write(session, _dead_in([_OURS]), epochs=old, topic_ids=_TOPICS, ends={})
    assert query(database.dsn, "SELECT id FROM ingest.dead_letters") == []
    assert query(database.dsn, f"SELECT next_offset FROM {BUILD}.positions") == [(0,)]


def test_a_session_from_before_a_swap_takes_nothing(session: Session, database: Database) -> None:
    assert _epoch(session) == 1
    query(database.dsn, "UPDATE ingest.builds SET state = 'previous'")
    with pytest.raises(FencedError):
        _epoch(session)


def test_whatever_of_ours_holds_a_position_is_ended_by_a_taker_over(
    session: Session, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "GHOST_WAIT_S", 0.2)
    assert _epoch(session) == 1
    with closing(psycopg.connect(database.dsn, application_name=f"{APPLICATION} frozen")) as frozen:
        frozen.execute(f"SELECT FROM {BUILD}.positions FOR UPDATE")
        assert _epoch(session) == 2
        with pytest.raises(psycopg.OperationalError):
            frozen.execute("SELECT 1")
