"""Workers on the shared servers; each is stopped with its test, whatever becomes of that."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from ingest.connect import Session
from rebuild.builder import event_forms
from tests.fixtures.contracts import SchemaIds, register
from tests.fixtures.databases import Database
from tests.integration.ingest.running import Worker, settings_of
from views import CATALOGUE
from views.positions import PositionVector

StartWorker = Callable[..., Worker]


@pytest.fixture(scope="session")
def ids(registry: str) -> SchemaIds:
    """The ids of every schema that hostile traffic is written with."""
    return register(registry)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A worker's session with this test's database."""
    with closing(Session(database.dsn, catalogue=CATALOGUE, forms=event_forms())) as opened:
        yield opened


@pytest.fixture
def worker(database: Database, kafka: str, registry: str) -> Iterator[StartWorker]:
    """A call that starts a worker on this test's database and topics; settings may be given."""
    with ExitStack() as at_end:

        def start(*, until: PositionVector | None = None, **more: Any) -> Worker:
            settings = settings_of(
                dsn=more.pop("dsn", database.dsn), bootstrap=kafka, registry=registry, **more
            )
            return at_end.enter_context(Worker(settings, until=until))

        yield start
