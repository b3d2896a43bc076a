"""The log is not the one we were reading: each way is recognised, named, and has its remedy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from dev.kafka import KafkaCluster
from tests.faults.harness.bites import Bites
from tests.faults.harness.commands import answer, command
from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground
from tests.faults.harness.producers import Ledger, send
from tests.faults.harness.registryfront import OTHER_SCHEMA
from tests.faults.harness.workers import WorkerProcess
from tests.faults.oracle import Registry, check_invariants, expect, high_watermarks, read_log
from tests.faults.oracle.compare import differences, hold
from tests.fixtures.topics import recreate_topics
from tests.fixtures.waiting import PATIENCE_S, eventually
from views import CATALOGUE

RECREATED: Final = "topic recreated under a worker"
TRIMMED: Final = "records deleted past the position"
ADDED: Final = "partitions added under a worker"
CUT: Final = "log replaced by an older copy"
OTHER_CLUSTER: Final = "another cluster at the same address"
NAMED_S: Final = PATIENCE_S
Positions = Mapping[tuple[str, int], int]


def refused(worker: WorkerProcess, words: str, partitions: int) -> None:
    """Return when the worker names this reason for so many partitions."""
    eventually(
        lambda: sum(words in reason for reason in worker.problems()) >= partitions,
        NAMED_S,
        f"{words!r} is said of {partitions} partitions",
    )


def wrong(ground: Ground, build: str) -> list[str]:
    """What the oracle holds against a build where it stands."""
    held = hold(ground.place.dsn, build)
    records, ends = read_log(ground.place.bootstrap, CATALOGUE.topics, until=held.next_offsets)
    expected = expect(
        records, Registry(ground.place.registry_url), next_offsets=ends, recorded=held.recorded
    )
    found = [*differences(held, expected), *check_invariants(ground.place.dsn, build)]
    return [str(each) for each in found]


def taken(ground: Ground, prefix: str, build: str = "build_1") -> int:
    """How many rows came of the records of a prefix."""
    ((count,),) = ground.ask(
        f"SELECT (SELECT count(*) FROM {build}.orders WHERE order_id LIKE %s)"
        f" + (SELECT count(*) FROM {build}.payments WHERE order_id LIKE %s)",
        *(f"{prefix}%",) * 2,
    )
    return int(count)


def fill(ground: Ground, orders: int, prefix: str) -> None:
    """Send records whose fate the ledger does not keep."""
    records = ground.traffic(orders, seed=9, prefix=prefix, poison=0.0)
    send(ground.place.bootstrap, records, Ledger())


@pytest.fixture
def at_work(ground: Ground) -> tuple[Ground, WorkerProcess]:
    """A ground whose worker has read everything."""
    ground.send(ground.traffic(40, seed=31, prefix="known"))
    worker = ground.worker()
    ground.wait_until_in()
    return ground, worker


def test_a_topic_created_anew_is_refused_and_none_of_its_events_is_taken(
    at_work: tuple[Ground, WorkerProcess],
) -> None:
    ground, worker = at_work
    before = ground.positions()
    recreate_topics(ground.place.bootstrap, partitions=3)
    refused(worker, "was deleted and created again", partitions=6)
    ground.bites.bit(RECREATED)
    fill(ground, 150, "other")  # further than the positions
    refused(ground.worker(), "was deleted and created again", partitions=3)
    assert ground.positions() == before
    assert taken(ground, "other") == 0


def test_a_topic_created_anew_and_filled_at_once_is_refused_and_rebuilt_from_by_command(
    at_work: tuple[Ground, WorkerProcess],
) -> None:
    ground, worker = at_work
    recreate_topics(ground.place.bootstrap, partitions=3)
    fill(ground, 150, "other")
    refused(worker, "was deleted and created again", partitions=6)
    ground.bites.bit(RECREATED)
    command(ground, "rebuild", "--other-log")
    ends = high_watermarks(ground.place.bootstrap, CATALOGUE.topics)
    eventually(lambda: hold(ground.place.dsn, "build_2").next_offsets == ends, NAMED_S, "all in")
    assert taken(ground, "known", "build_2") == 0
    # Dead letters of the first life stay on record, under the same coordinates.
    assert [said for said in wrong(ground, "build_2") if not said.startswith("dead letter")] == []
    ground.wait_ready(worker)


def test_records_deleted_before_they_were_read_are_named_and_accepted_by_command(
    at_work: tuple[Ground, WorkerProcess],
) -> None:
    ground, worker = at_work
    before = ground.positions()["orders", 0]
    worker.freeze()
    fill(ground, 60, "later")
    low = before + 5
    admin = ground.admin()  # must outlive the call: its end cancels what it was asked
    for done in admin.delete_records([TopicPartition("orders", 0, low)]).values():
        done.result()
    worker.thaw()
    refused(worker, "5 events of orders:0 are gone: the log starts at", partitions=1)
    ground.bites.bit(TRIMMED)
    assert ground.positions()["orders", 0] == before
    made = answer(ground, "positions", "accept-gap", "orders", "0", "--as", "ann")
    assert (made["from_offset"], made["to_offset"], made["decided_by"]) == (before, low, "ann")
    ground.wait_until_in()
    ground.wait_ready(worker)
    (kept,) = answer(ground, "positions", "decisions")["decisions"]
    assert (kept["decision"], kept["partition"]) == ("accept-gap", 0)


def test_partitions_added_while_it_runs_are_read_from_their_first_event(ground: Ground) -> None:
    trickle = ground.trickle(ground.traffic(3_000, seed=33), per_s=150)
    quick = {"KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS": "1000"}
    one, other = ground.worker(**quick), ground.worker(**quick)
    ground.wait_for_share(one, other)
    more = [NewPartitions(topic, 5) for topic in CATALOGUE.topics]
    admin = ground.admin()  # must outlive the call: its end cancels what it was asked
    for done in admin.create_partitions(more).values():
        done.result()
    trickle.stop()
    fill_new = ground.traffic(200, seed=34, prefix="new")
    ground.send(fill_new)
    ends = high_watermarks(ground.place.bootstrap, CATALOGUE.topics)
    assert min(ends[topic, number] for topic in CATALOGUE.topics for number in (3, 4)) > 0
    ground.bites.bit(ADDED, 4)
    ground.wait_for_share(one, other)
    ground.must_be_right()


@contextmanager
def _older_copy(field: Field, folder: Path) -> Iterator[None]:
    """The broker's data as they are on entering are its data again on leaving."""
    (broker,) = field.stack.kafka.brokers
    data = broker.home / "data"
    broker.stop()
    shutil.copytree(data, folder / "copy")
    field.stack.kafka.start()
    try:
        yield
    finally:
        broker.stop()
        shutil.rmtree(data)
        shutil.copytree(folder / "copy", data)
        field.stack.kafka.start()


@pytest.mark.proof
def test_a_log_replaced_by_an_older_copy_is_refused_also_when_it_has_grown_past_the_position(
    field: Field, ground: Ground, tmp_path: Path
) -> None:
    ground.send(ground.traffic(40, seed=35, prefix="known"))
    with _older_copy(field, tmp_path):
        field.stack.kafka.restart()  # one epoch more than the copy will have
        fill(ground, 40, "gone")
        worker = ground.worker()
        ground.wait_until_in()
        before = ground.positions()
    # Its client waits for the newer leaders that it knew: it reads nothing until it is restarted.
    eventually(lambda: not worker.ready(), NAMED_S, "it is not ready")
    worker.kill()
    worker.start()
    refused(worker, "the log was cut or restored from an older copy", partitions=1)
    ground.bites.bit(CUT)
    fill(ground, 150, "other")
    ends = high_watermarks(ground.place.bootstrap, CATALOGUE.topics)
    assert all(ends[place] > at for place, at in before.items())
    refused(worker, "its leader epoch", partitions=6)
    ground.bites.bit(CUT)
    assert ground.positions() == before
    for topic, number in sorted(before):
        answer(ground, "positions", "accept-log", topic, str(number), "--as", "ann")
    ground.wait_until_in()
    ground.wait_ready(worker)
    assert len(answer(ground, "positions", "decisions")["decisions"]) == 6


@pytest.mark.proof
def test_another_cluster_at_the_same_address_is_refused_until_the_first_is_back(
    field: Field, at_work: tuple[Ground, WorkerProcess]
) -> None:
    ground, worker = at_work
    before = ground.positions()
    first = field.stack.kafka
    first.stop()
    other = KafkaCluster(port=first.port)
    try:
        other.start()
        assert other.bootstrap_servers == first.bootstrap_servers, "it has another address"
        recreate_topics(other.bootstrap_servers, partitions=3)
        fill(ground, 150, "other")
        refused(worker, "belongs to Kafka cluster", partitions=6)
        ground.bites.bit(OTHER_CLUSTER)
        assert ground.positions() == before
        assert taken(ground, "other") == 0
    finally:
        other.close()
        first.start()
    ground.send(ground.traffic(20, seed=36, prefix="after"))
    ground.must_be_right(NAMED_S)


def test_a_registry_id_that_means_another_schema_stops_the_worker_with_its_name(
    at_work: tuple[Ground, WorkerProcess], bites: Bites
) -> None:
    ground, worker = at_work
    worker.kill()
    before, letters = ground.positions(), ground.ask("SELECT count(*) FROM ingest.dead_letters")
    ground.registry.spoil(OTHER_SCHEMA, 10_000)
    ground.send(ground.traffic(10, seed=37, prefix="after"))
    again = ground.worker()
    code = again.process.wait(NAMED_S)
    assert code == 1
    assert "means another schema than before" in again.log
    assert bites.of(f"registry: {OTHER_SCHEMA}") > 0
    assert ground.positions() == before
    assert ground.ask("SELECT count(*) FROM ingest.dead_letters") == letters
    ground.registry.heal()
    ground.worker()
    ground.must_be_right()
