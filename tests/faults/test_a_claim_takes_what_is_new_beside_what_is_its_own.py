"""Taking partitions in the database: some are new to this worker, some it owned a moment ago."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from ingest.claim import BrokerView, Claimed, claim
from ingest.connect import Session
from ingest.errors import FencedError
from ingest.form import form_of
from schemas import contracts
from tests.fixtures.databases import Database
from views import CATALOGUE
from views.positions import Partition

_BROKER = BrokerView(cluster_id="cluster", topic_id="topic", low=0, high=9)
_OWN: Partition = ("orders", 0)
_NEW: Partition = ("payments", 0)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    forms = {
        view.stream.topic: form_of(view, contracts.load(view.stream.contract).schema)
        for view in CATALOGUE.stream_views
    }
    with closing(Session(database.dsn, catalogue=CATALOGUE, forms=forms)) as opened:
        yield opened


def _epochs(session: Session, *partitions: Partition, **still_mine: int) -> dict[Partition, int]:
    brokers = dict.fromkeys(partitions, _BROKER)
    mine = {_OWN: still_mine["own"]} if still_mine else {}
    claimed = claim(session, brokers, still_mine=mine)
    return {p: found.epoch for p, found in claimed.items() if isinstance(found, Claimed)}


def test_new_partitions_are_taken_beside_those_that_are_still_its_own(session: Session) -> None:
    assert _epochs(session, _OWN, _NEW) == {_OWN: 1, _NEW: 1}
    assert _epochs(session, _OWN, _NEW, own=1) == {_OWN: 2, _NEW: 2}


def test_nothing_is_taken_where_somebody_newer_owns_one_of_them(session: Session) -> None:
    assert _epochs(session, _OWN, _NEW) == {_OWN: 1, _NEW: 1}
    assert _epochs(session, _OWN) == {_OWN: 2}
    with pytest.raises(FencedError):
        _epochs(session, _OWN, _NEW, own=1)
    assert _epochs(session, _OWN, _NEW) == {_OWN: 3, _NEW: 2}
