"""The group's offsets, which lag tools show, follow the position rows and are right at the end."""

from collections.abc import Mapping

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from tests.fixtures.contracts import SchemaIds
from tests.fixtures.databases import Database
from tests.fixtures.topics import FreshTopics
from tests.fixtures.traffic import Traffic
from tests.fixtures.waiting import eventually
from tests.integration.ingest.running import WAIT_S, Worker, positions, reach, settings_of, tell
from views.positions import Partition


def told(bootstrap: str, group: str) -> Mapping[Partition, int]:
    """What the broker knows of the group's offsets."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group]
    found = asked.result(WAIT_S).topic_partitions
    return {(each.topic, each.partition): each.offset for each in found}


def test_lag_tools_are_told_while_a_worker_runs_and_when_it_leaves(
    database: Database, fresh_topics: FreshTopics, registry: str, ids: SchemaIds
) -> None:
    bootstrap = fresh_topics(partitions=2)
    settings = settings_of(
        dsn=database.dsn, bootstrap=bootstrap, registry=registry, group=database.name
    )

    def is_told() -> bool:
        held = {place: offset for place, offset in positions(database.dsn).items() if offset > 0}
        return held == dict(told(bootstrap, database.name))

    with Worker(settings) as worker:
        reach(database.dsn, tell(bootstrap, Traffic(seed=71, orders=20, ids=ids)))
        eventually(is_told, WAIT_S, "the group knows where the rows are, with nothing more to read")
        reach(database.dsn, tell(bootstrap, Traffic(seed=72, orders=20, ids=ids, prefix="later")))
        worker.stop()
    assert is_told()
