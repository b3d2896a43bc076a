"""Record timestamps that no calendar holds: whatever a producer writes there, its events land."""

import random

import pytest

from tests.fixtures.content import Writer, order_content
from tests.fixtures.contracts import SchemaIds
from tests.fixtures.databases import Database
from tests.fixtures.topics import alter_topic
from tests.fixtures.traffic import Record
from tests.integration.ingest.conftest import StartWorker
from tests.integration.ingest.running import BUILD, query, reach, tell

_FAR_MS = 10**16
"""In the year 318857."""


@pytest.fixture
def any_time(kafka: str) -> str:
    """A broker that takes records of any time, as brokers did before Kafka 3.6."""
    alter_topic(kafka, "orders", message_timestamp_after_max_ms=str(2**63 - 1))
    return kafka


def test_events_tombstones_and_dead_letters_of_any_time_land(
    database: Database, any_time: str, ids: SchemaIds, worker: StartWorker
) -> None:
    write = Writer(ids)

    def order(name: str) -> bytes:
        return write("orders", order_content(random.Random(1), name, customers=1))

    def record(name: str, value: bytes | None) -> Record:
        return Record("orders", name.encode(), value, _FAR_MS, "far")

    worker()
    far = [record("there", order("there")), record("gone", order("gone")), record("gone", None)]
    reach(database.dsn, tell(any_time, [*far, record("poison", b"")]))
    latest = "'9999-12-30 00:00:00+00'"
    assert query(
        database.dsn,
        f"SELECT order_id, visible, source_recorded_at = {latest} FROM {BUILD}.orders ORDER BY 1",
    ) == [("gone", False, True), ("there", True, True)]
    letters = query(database.dsn, f"SELECT reason, recorded_at = {latest} FROM ingest.dead_letters")
    assert letters == [("EMPTY", True)]
    assert query(
        database.dsn,
        f"SELECT DISTINCT last_event_at = {latest} FROM {BUILD}.positions WHERE next_offset > 0",
    ) == [(True,)]
