"""The servers of a run of fault tests: PostgreSQL, Kafka and the registry, all ours to kill.

Stands apart from the shared servers of `tests/fixtures`: those may not be stopped. Whoever breaks
something here mends it before the next test.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from dev.stack import DATABASE, OWNER, Stack
from tests.faults.harness.bites import Bites
from tests.faults.harness.ground import Ground, Place
from tests.fixtures.contracts import SchemaIds, register
from tests.fixtures.databases import migrate
from tests.fixtures.topics import recreate_topics

_POSTGRES: Final = {"max_connections": "60"}


class Field:
    """A stack of our own with a migrated database to copy from."""

    def __init__(self, *, brokers: int = 1, seed: int = 1) -> None:
        self.seed = seed
        self.stack = Stack(train=False, brokers=brokers, postgres_settings=_POSTGRES)
        self._made = 0
        self._ids: SchemaIds | None = None

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self.stack.close)
            self.stack.start()
            migrate(self.stack.database_url)
            self._ids = register(self.stack.registry.url)
            undo.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stack.close()

    @property
    def ids(self) -> SchemaIds:
        """The schemas that traffic is written with."""
        assert self._ids is not None, "the field was not entered"
        return self._ids

    def ground(
        self,
        folder: Path,
        bites: Bites,
        *,
        partitions: int = 3,
        settings: Mapping[str, str] | None = None,
    ) -> Ground:
        """New empty topics and a new database, with proxies before the servers."""
        recreate_topics(self.stack.kafka.bootstrap_servers, partitions=partitions)
        return self.another_database(folder, bites, settings=settings)

    def reader_dsn(self, ground: Ground) -> str:
        """The address of a ground's database for the login that may only read."""
        reader = self.stack.api_database_url.removesuffix(f"/{DATABASE}")
        return f"{reader}/{ground.place.dsn.rpartition('/')[2]}"

    def another_database(
        self, folder: Path, bites: Bites, *, settings: Mapping[str, str] | None = None
    ) -> Ground:
        """A new database on the log that is there, read from its start by a group of its own."""
        self._made += 1
        name = f"ground_{self._made}"
        self.stack.postgres.create_database(name, template=DATABASE, owner=OWNER)
        place = Place(
            dsn=self.stack.database_url.removesuffix(f"/{DATABASE}") + f"/{name}",
            postgres_port=self.stack.postgres.port,
            bootstrap=self.stack.kafka.bootstrap_servers,
            registry_url=self.stack.registry.url,
            ids=self.ids,
            group=name,
            seed=self.seed,
        )
        return Ground(place, folder, bites, settings=settings)
