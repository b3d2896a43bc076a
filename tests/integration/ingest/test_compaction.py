"""Compaction that is switched on under a worker: what is left of the log is not read on from."""

from tests.fixtures.databases import Database
from tests.fixtures.topics import alter_topic
from tests.fixtures.waiting import eventually
from tests.integration.ingest.conftest import StartWorker
from tests.integration.ingest.running import WAIT_S


def test_a_topic_that_is_compacted_while_it_is_read_is_refused_until_that_is_undone(
    database: Database, kafka: str, worker: StartWorker
) -> None:
    running = worker()
    eventually(lambda: running.ready().get("partitions") == 6, WAIT_S, "it owns both topics")
    alter_topic(kafka, "payments", cleanup_policy="compact")
    eventually(lambda: running.ready()["partitions"] == 3, WAIT_S, "it has let go of payments")
    (told, *_others) = running.ready()["problems"]
    assert "topic payments has cleanup.policy=compact" in told
    alter_topic(kafka, "payments", cleanup_policy="delete")
    eventually(lambda: running.ready()["ready"], WAIT_S, "it goes on by itself")
    assert running.ready()["partitions"] == 6
