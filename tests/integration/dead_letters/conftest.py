"""The scene of a test: topics of one partition each, a database, and nothing running yet."""

from collections.abc import Iterator

import pytest

from tests.fixtures.contracts import register
from tests.fixtures.databases import Database
from tests.fixtures.topics import FreshTopics
from tests.integration.dead_letters.scene import Scene


@pytest.fixture
def scene(
    database: Database,
    fresh_topics: FreshTopics,
    registry: str,
) -> Iterator[Scene]:
    """One partition per topic, so that offsets are the order of telling."""
    made = Scene(
        dsn=database.dsn,
        bootstrap=fresh_topics(partitions=1),
        registry=registry,
        ids=register(registry),
    )
    yield made
    for worker in made.workers:
        worker.stop_event.set()
    for worker in made.workers:
        worker.stop()
