"""Everything that happens at once, in bulk: one worker against the oracle, in SQL and over GraphQL;
and the same log cut into batches of every size."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ingest import service
from ingest.worker import Limits
from tests.faults.harness import chain
from tests.fixtures.contracts import SchemaIds
from tests.fixtures.databases import Database, DatabaseServer
from tests.fixtures.traffic import Traffic
from tests.integration.api.conftest import Api, settings
from tests.integration.ingest.conftest import StartWorker
from tests.integration.ingest.running import (
    BUILD,
    Worker,
    differences_to_log,
    dump,
    settings_of,
    tell,
)
from tests.integration.ingest.sums import sums_agree_for_people, sums_agree_over_graphql
from views.positions import Partition, PositionVector

RECORDS_OF_AN_ORDER = 5.2  # at least
HAPPENS = ("event", "duplicate", "late", "conflict", "tombstone", "recreated", "evolved", "poison")


@pytest.mark.parametrize(
    "events",
    [10_000, pytest.param(100_000, marks=[pytest.mark.proof, pytest.mark.timeout(1_800)])],
)
def test_after_hostile_traffic_every_row_and_every_sum_is_right(
    events: int, worker: StartWorker, database: Database, kafka: str, registry: str, ids: SchemaIds
) -> None:
    records = list(Traffic(seed=2, orders=int(events / RECORDS_OF_AN_ORDER), ids=ids))
    assert len(records) >= events
    kinds = Counter(record.kind.split(":")[0] for record in records)
    assert not [kind for kind in HAPPENS if not kinds[kind]], kinds
    worker(until=PositionVector(tell(kafka, records))).wait()
    assert differences_to_log(database.dsn, bootstrap=kafka, registry=registry) == []
    sums_agree_for_people(database.dsn)
    with TestClient(create_app(settings(database.api_dsn))) as client:
        sums_agree_over_graphql(Api(client))


# The invariants, for people in SQL: the views that they are given, not the tables behind.


# Batches.


class AnySize(Limits):
    """Limits whose batches are of another size each time that they are asked for."""

    _chance = random.Random(6)

    def __getattribute__(self, name: str) -> Any:
        return self._chance.randint(1, 60) if name == "rows" else super().__getattribute__(name)


def _most_at_once(dsn: str) -> int:
    """How far a position moved at most in one transaction, by the trigger of `chain`."""
    return max(link.new_next - link.old_next for link in chain.read(dsn))


def test_the_same_log_cut_into_batches_of_any_size_gives_the_same(
    kafka: str,
    registry: str,
    ids: SchemaIds,
    database_server: DatabaseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows, counters, tombstones and dead letters, column by column; one worker for each size."""
    ends = tell(kafka, Traffic(seed=4, orders=100, ids=ids, woven=40, poison=0.03))
    found: dict[str, dict[str, list[str]]] = {}
    for name, rows in (("1", 1), ("2", 2), ("7", 7), ("1,000", 1_000), ("at random", 60)):
        if name == "at random":
            monkeypatch.setattr(service, "Limits", AnySize)
        database = database_server.create(template=database_server.template.name)
        chain.install(database.dsn, BUILD)
        _apply(database.dsn, kafka, registry, ends=ends, rows=rows)
        assert differences_to_log(database.dsn, bootstrap=kafka, registry=registry) == [], name
        assert _most_at_once(database.dsn) <= rows, name
        found[name] = dump(database.dsn)
        if name == "1,000":
            assert _most_at_once(database.dsn) > 60, "nothing was cut coarser"
        database_server.drop(database)
    assert all(found["1"][table] for table in ("orders", "payments", "tombstones", "dead_letters"))
    for name, tables in found.items():
        assert tables == found["1"], name


def _apply(
    dsn: str, kafka: str, registry: str, *, ends: Mapping[Partition, int], rows: int
) -> None:
    """A worker from the start of the log to its end, with a group and batches of its own."""
    group = dsn.rpartition("/")[2]
    given = settings_of(dsn=dsn, bootstrap=kafka, registry=registry, group=group, batch_rows=rows)
    with Worker(given, until=PositionVector(ends)) as worker:
        worker.wait()
