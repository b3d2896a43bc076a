"""What the fixtures promise to every other test on real parts."""

import psycopg
import pytest
from confluent_kafka import Producer, TopicCollection
from confluent_kafka.admin import AdminClient
from psycopg.errors import InsufficientPrivilege

from schemas.registry import Registry
from tests.fixtures.databases import Database, DatabaseServer
from tests.fixtures.topics import FreshTopics
from views import CATALOGUE


def test_every_test_gets_a_migrated_database_of_its_own(
    database: Database, database_server: DatabaseServer
) -> None:
    other = database_server.create(template=database_server.template.name)
    with psycopg.connect(database.dsn) as connection:
        connection.execute("INSERT INTO build_1.orders (order_id) VALUES ('mine')")
    with psycopg.connect(other.dsn) as connection:
        count = connection.execute("SELECT count(*) FROM build_1.orders").fetchone()
    database_server.drop(other)
    assert count == (0,)


def test_the_reader_login_reads_views_and_nothing_else(database: Database) -> None:
    readable = ["ingest.builds", "ingest.build_views", "build_1.positions"]
    readable += [f"build_1.{view.name}" for view in CATALOGUE.views]
    readable += [f"views.{view.name}" for view in CATALOGUE.views]
    closed = ["ingest.dead_letters", "ingest.outbox", "build_1.tombstones"]
    with psycopg.connect(database.api_dsn, autocommit=True) as connection:
        for table in readable:
            connection.execute(f"SELECT count(*) FROM {table}".encode())
        for table in closed:
            with pytest.raises(InsufficientPrivilege):
                connection.execute(f"SELECT count(*) FROM {table}".encode())
        for table in readable:
            with pytest.raises(InsufficientPrivilege):
                connection.execute(f"DELETE FROM {table}".encode())


def test_fresh_topics_are_empty_and_have_new_ids(fresh_topics: FreshTopics) -> None:
    bootstrap = fresh_topics(partitions=2)
    first = _topic_ids(bootstrap)
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    producer.produce("orders", b"left over")
    assert producer.flush(30) == 0
    fresh_topics(partitions=3)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = admin.list_topics(timeout=10).topics
    assert {len(topics[topic].partitions) for topic in CATALOGUE.topics} == {3}
    assert not set(_topic_ids(bootstrap)) & set(first)


def test_the_registry_knows_every_contract(registry: str) -> None:
    with Registry(registry) as client:
        subjects = client.subjects()
        levels = {client.compatibility(f"{topic}-value") for topic in CATALOGUE.topics}
    assert {f"{topic}-value" for topic in CATALOGUE.topics} <= set(subjects)
    assert levels == {"FULL"}


def _topic_ids(bootstrap: str) -> list[str]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    described = admin.describe_topics(TopicCollection(list(CATALOGUE.topics)))
    return [str(topic.result().topic_id) for topic in described.values()]
