"""What transactional producers write: aborted events never count, and nobody waits behind them."""

import random

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from ingest.watermarks import high_watermarks
from tests.fixtures.content import Writer, order_content
from tests.fixtures.contracts import SchemaIds
from tests.fixtures.databases import Database
from tests.integration.ingest.conftest import StartWorker
from tests.integration.ingest.running import (
    BUILD,
    WAIT_S,
    differences_to_log,
    query,
    reach,
    transactional,
)
from views.positions import Partition


class Teller:
    """Tells of orders in transactions of one producer."""

    def __init__(self, bootstrap: str, ids: SchemaIds, name: str) -> None:
        self._bootstrap = bootstrap
        self._write = Writer(ids)
        self._producer: Producer = transactional(bootstrap, name)

    def tell(self, *order_ids: str, abort: bool = False) -> None:
        self._producer.begin_transaction()
        for order_id in order_ids:
            content = order_content(random.Random(order_id), order_id, customers=3)
            self._producer.produce("orders", key=order_id, value=self._write("orders", content))
        self._producer.flush(WAIT_S)
        if abort:
            self._producer.abort_transaction(WAIT_S)
        else:
            self._producer.commit_transaction(WAIT_S)

    def ends(self) -> dict[Partition, int]:
        """High watermarks: behind the marks that transactions end with."""
        admin = AdminClient({"bootstrap.servers": self._bootstrap})
        partitions = admin.list_topics(timeout=WAIT_S).topics["orders"].partitions
        return high_watermarks(admin, [("orders", number) for number in partitions], WAIT_S)


@pytest.mark.parametrize("backlog", [True, False], ids=["from a backlog", "as they come"])
def test_aborted_events_never_count_and_positions_pass_them(
    *,
    backlog: bool,
    database: Database,
    kafka: str,
    registry: str,
    ids: SchemaIds,
    worker: StartWorker,
) -> None:
    teller = Teller(kafka, ids, f"teller-{backlog}")
    if not backlog:
        worker()
    teller.tell("kept-1", "kept-2")
    teller.tell("aborted-1", "aborted-2", "kept-1", abort=True)
    teller.tell("kept-3")
    teller.tell("aborted-3", abort=True)  # nothing but the marks of aborted ones at the end
    if backlog:
        worker()
    reach(database.dsn, teller.ends())
    found = query(database.dsn, f"SELECT order_id FROM {BUILD}.orders ORDER BY 1")
    assert found == [("kept-1",), ("kept-2",), ("kept-3",)]
    assert not differences_to_log(database.dsn, bootstrap=kafka, registry=registry)
