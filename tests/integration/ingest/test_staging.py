"""Staging: what a session leaves in its temporary tables, and what the next batch makes of it."""

from typing import Final

import psycopg
import pytest

from ingest.claim import BrokerView, Claimed, claim
from ingest.connect import Session
from ingest.errors import BatchRefusedError
from ingest.fold import Advance, Folded, fold
from ingest.records import Event, Made, Record
from ingest.write import write
from rebuild.builder import VIEWS
from tests.fixtures.databases import Database
from tests.integration.ingest.running import BUILD, query
from views.positions import Partition

_ORDERS: Final[Partition] = ("orders", 0)
_NOON_US: Final = 1_767_268_800_000_000
FEW: Final = 150
"""Rows that are staged within the pipeline."""
MANY: Final = 5_100
"""Rows that go by COPY, and leave more room behind than is left taken."""
PAGE: Final = 8_192


class Owner:
    """Writes batches of new orders, one event each."""

    def __init__(self, session: Session) -> None:
        broker = BrokerView(cluster_id="cluster", topic_id="topic", low=0, high=9)
        claimed = claim(session, {_ORDERS: broker})[_ORDERS]
        assert isinstance(claimed, Claimed)
        self._session, self._epoch = session, claimed.epoch
        self.at = 0

    def write(self, count: int, *, amount: int = 10_000) -> None:
        """Commit a batch of so many orders."""
        write(
            self._session,
            self._folded(count, amount),
            epochs={_ORDERS: self._epoch},
            topic_ids={"orders": "topic"},
            ends={},
        )
        self.at += count

    def _folded(self, count: int, amount: int) -> Folded:
        events = [self._event(offset, amount) for offset in range(self.at, self.at + count)]
        advances = {_ORDERS: Advance(self.at, self.at + count)}
        return fold(events, advances=advances, views=VIEWS)

    def _event(self, offset: int, amount: int) -> Event:
        key = f"o{offset}"
        record = Record(*_ORDERS, offset, key.encode(), b"", (), _NOON_US // 1_000, 0)
        head = (key, 1, f"e{offset}", "PLACED", f"c{offset % 7}", "EUR")
        row = (*head, amount, 0, '[{"sku": "\\"a\\\\b\\""}]', _NOON_US, _NOON_US)
        return Event(record, (key,), 1, 7, Made([row]), 0)


def staged_bytes(session: Session) -> int:
    """How many bytes staged orders take, in whole pages."""
    with session.transaction() as connection:
        row = connection.execute("SELECT pg_relation_size('staged_orders')").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("sizes", [(FEW, FEW, 1), (MANY, FEW, MANY, 1)])
def test_each_batch_counts_once_however_it_is_staged(
    session: Session, database: Database, sizes: tuple[int, ...]
) -> None:
    owner = Owner(session)
    for size in sizes:
        owner.write(size)
    counted = query(
        database.dsn, f"SELECT sum(order_count), sum(ordered) FROM {BUILD}.customer_totals"
    )
    assert counted == [(sum(sizes), sum(sizes))]
    items = query(database.dsn, f"SELECT DISTINCT items #>> '{{0,sku}}' FROM {BUILD}.orders")
    assert items == [('"a\\b"',)]


def test_small_batches_leave_room_behind_only_for_a_while(session: Session) -> None:
    owner = Owner(session)
    sizes = []
    for _ in range(80):
        owner.write(FEW)
        sizes.append(staged_bytes(session))
    assert max(sizes[40:]) <= max(sizes[:40])
    assert sizes[0] < max(sizes), "what is deleted keeps its room"


def test_a_large_batch_leaves_nothing_for_the_small_ones_behind_it(session: Session) -> None:
    owner = Owner(session)
    for _ in range(2):
        owner.write(MANY)
    large = staged_bytes(session)
    owner.write(1)
    assert (large > PAGE, staged_bytes(session)) == (True, PAGE)


def test_a_batch_that_was_rolled_back_leaves_nothing_either(
    session: Session, database: Database
) -> None:
    owner = Owner(session)
    for _ in range(2):
        owner.write(MANY)
    with pytest.raises(BatchRefusedError) as refused:
        owner.write(1, amount=10**18)
    assert isinstance(refused.value.__cause__, psycopg.DataError)
    owner.write(1)
    assert staged_bytes(session) == PAGE
    assert query(database.dsn, f"SELECT count(*) FROM {BUILD}.orders") == [(2 * MANY + 1,)]
