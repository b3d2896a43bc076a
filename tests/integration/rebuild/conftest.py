"""One hostile log for the folder, and a database per test that has read it."""

from collections.abc import Iterator

import pytest

from tests.fixtures.contracts import register
from tests.fixtures.databases import Database, DatabaseServer
from tests.fixtures.servers import Servers
from tests.fixtures.topics import recreate_topics
from tests.integration.rebuild import killed
from tests.integration.rebuild.parts import Log, Watcher, wait_until_live_includes, worker


@pytest.fixture(scope="package")
def log(servers: Servers) -> Iterator[Log]:
    """Some 1,500 hostile records in 3 partitions of each topic."""
    killed.prepare()
    recreate_topics(servers.kafka.bootstrap_servers, partitions=3)
    made = Log(
        servers.kafka.bootstrap_servers, servers.registry.url, register(servers.registry.url)
    )
    made.produce(seed=11, orders=250)
    yield made
    made.close()


@pytest.fixture(scope="package")
def read(log: Log, database_server: DatabaseServer) -> Iterator[Database]:
    """A database in which a worker has read the log; tests copy it."""
    database = database_server.create(template=database_server.template.name)
    with worker(log.settings(database)):
        wait_until_live_includes(database, log.end())
    yield database
    database_server.drop(database)


@pytest.fixture
def shop(read: Database, database_server: DatabaseServer) -> Iterator[Database]:
    """A copy of it for one test."""
    copy = database_server.create(template=read.name)
    yield copy
    database_server.drop(copy)


@pytest.fixture
def watcher() -> Watcher:
    """Somebody who watches."""
    return Watcher()
