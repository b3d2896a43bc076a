"""Brokers freeze, die and move their leaders; producers abort, hang and are fenced."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import KafkaException

from dev.kafka import Broker, KafkaCluster
from tests.faults.harness.bites import Bites
from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground
from tests.faults.harness.producers import ABORTED, OpenTransaction, producer, transactions
from tests.fixtures.waiting import PATIENCE_S, eventually, let_last

FROZEN: Final = "broker frozen past its session"
ABORTS: Final = "transaction aborted after its records landed"
LEFT_OPEN: Final = "partition held up by an open transaction"
FENCED: Final = "producer fenced"
_S: Final = PATIENCE_S
_SESSION_S: Final = 4.0
"""After which the controller fences a broker (`dev.kafka.TUNED`)."""
_ASKER: Final = """
import sys
from confluent_kafka.admin import AdminClient
from ingest import watermarks
from ingest.errors import TransientError
admin = AdminClient({"bootstrap.servers": sys.argv[1], "log_level": 0})
print("asking", flush=True)
refused = 0
while refused >= 0:
    try:
        watermarks.cluster_id(admin, "orders", 1.0)
    except TransientError:
        refused += 1
    else:
        if refused > 1:
            print("answered again", flush=True)
            refused = -1
"""


def test_a_broker_that_is_frozen_past_its_session_ends_no_worker(
    field: Field, ground: Ground
) -> None:
    trickle = ground.trickle(ground.traffic(2_000, seed=61), per_s=100)
    ground.worker()
    ground.wait_for_progress(50)
    command = [sys.executable, "-c", _ASKER, ground.place.bootstrap]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdout is not None
        assert asker.stdout.readline() == "asking\n"
        (broker,) = field.stack.kafka.brokers
        broker.freeze()
        let_last(1.5 * _SESSION_S)
        broker.thaw()
        ground.bites.bit(FROZEN)
        # Fenced, it names no broker: librdkafka ends a process that asks in the wrong way.
        assert asker.stdout.readline() == "answered again\n"
        assert asker.wait(_S) == 0
    trickle.stop()
    ground.must_be_right()


def test_what_is_aborted_never_shows_and_what_is_open_holds_back_what_is_complete(
    ground: Ground,
) -> None:
    first, second = ground.worker(), ground.worker()
    ground.wait_for_share(first, second)
    kept = ground.traffic(300, seed=62, prefix="kept")
    thrown = ground.traffic(300, seed=63, prefix=f"{ABORTED}thrown")
    transactions(ground.place.bootstrap, kept, thrown, ground.ledger, rounds=20)
    ground.bites.bit(ABORTS, ground.ledger.aborted)
    left_open = OpenTransaction(ground.place.bootstrap, islice(kept, 12), ground.ledger)
    ((opened_at,),) = ground.ask("SELECT clock_timestamp()")
    ground.send(ground.traffic(40, seed=64, prefix="behind"))
    eventually(lambda: _looked_at(ground, opened_at), _S, "each end was looked at since")
    stands, complete = ground.positions(), _complete(ground)
    for place, begins_at in left_open.first.items():
        assert stands[place] <= begins_at, "it passed a record that is not committed"
        assert complete[place] is None or complete[place] < opened_at
        ground.bites.bit(LEFT_OPEN)
    left_open.commit()
    eventually(
        lambda: all(at is not None and at > opened_at for at in _complete(ground).values()),
        _S,
        "what was open is in, and counts as complete",
    )
    ground.must_be_right()
    assert not ground.ask("SELECT FROM build_1.orders WHERE order_id LIKE %s", f"{ABORTED}%")


def _looked_at(ground: Ground, since: datetime) -> bool:
    query = "SELECT bool_and(observed_at > %s) FROM build_1.positions"
    return bool(ground.ask(query, since)[0][0])


def _complete(ground: Ground) -> dict[tuple[str, int], datetime | None]:
    rows = ground.ask("SELECT topic, partition, complete_as_of FROM build_1.positions")
    return {(topic, partition): at for topic, partition, at in rows}


def test_what_a_fenced_producer_had_sent_never_shows(ground: Ground) -> None:
    ground.worker()
    name = {"transactional.id": "one of two"}
    old = producer(ground.place.bootstrap, **name)
    old.init_transactions(_S)
    old.begin_transaction()
    for record in ground.traffic(10, seed=65, prefix=f"{ABORTED}old"):
        old.produce(record.topic, record.value, record.key, timestamp=record.timestamp_ms)
    assert old.flush(_S) == 0
    producer(ground.place.bootstrap, **name).init_transactions(_S)
    with pytest.raises(KafkaException) as refused:
        old.commit_transaction(_S)
    assert refused.value.args[0].fatal()
    ground.bites.bit(FENCED)
    ground.send(ground.traffic(20, seed=66, prefix="after"))
    ground.must_be_right()
    assert not ground.ask("SELECT FROM build_1.orders WHERE order_id LIKE %s", f"{ABORTED}%")


# Three brokers.


@pytest.fixture(scope="module")
def three(fault_seed: int) -> Iterator[Field]:
    """Three brokers, of which any one may be lost."""
    with Field(brokers=3, seed=fault_seed) as servers:
        yield servers


def _leader(cluster: KafkaCluster, topic: str, partition: int) -> Broker:
    found = cluster.admin().list_topics(topic, timeout=30).topics[topic].partitions[partition]
    return next(broker for broker in cluster.brokers if broker.node_id == found.leader)


def _coordinator(cluster: KafkaCluster, ground: Ground) -> Broker:
    admin, group = cluster.admin(), ground.place.group
    told = admin.describe_consumer_groups([group])[group].result()
    return next(broker for broker in cluster.brokers if broker.node_id == told.coordinator.id)


def _replaced(find: Callable[[], Broker], before: Broker) -> int:
    """Return when somebody else does what this broker did."""

    def other() -> bool:
        try:
            return find() is not before
        except (KafkaException, StopIteration):
            return False

    eventually(other, PATIENCE_S, f"another than broker {before.node_id} does its work")
    return 1


def _leader_killed(cluster: KafkaCluster, ground: Ground) -> int:
    leader = _leader(cluster, "orders", 0)
    leader.kill()
    bit = _replaced(lambda: _leader(cluster, "orders", 0), leader)
    ground.wait_for_progress(200)
    leader.start()
    return bit


def _leader_frozen(cluster: KafkaCluster, ground: Ground) -> int:
    leader = _leader(cluster, "payments", 0)
    leader.freeze()
    bit = _replaced(lambda: _leader(cluster, "payments", 0), leader)
    ground.wait_for_progress(200)
    leader.thaw()
    return bit


def _coordinator_killed(cluster: KafkaCluster, ground: Ground) -> int:
    coordinator = _coordinator(cluster, ground)
    coordinator.kill()
    bit = _replaced(lambda: _coordinator(cluster, ground), coordinator)
    ground.wait_for_progress(200)
    coordinator.start()
    return bit


def _rolling_restart(cluster: KafkaCluster, ground: Ground) -> int:
    bit = 0
    for broker in cluster.brokers:
        before = broker.process.pid
        broker.restart()
        cluster.wait_ready()
        ground.wait_for_progress(50)
        bit += broker.process.pid != before
    return bit


def _all_killed(cluster: KafkaCluster, ground: Ground) -> int:
    cluster.kill()
    bit = sum(not broker.process.running for broker in cluster.brokers)
    cluster.start()
    ground.wait_for_progress(50)
    return bit


Harm = Callable[[KafkaCluster, Ground], int]
HARMS: Final[Mapping[str, Harm]] = {
    "leader killed": _leader_killed,
    "leader frozen": _leader_frozen,
    "group coordinator killed": _coordinator_killed,
    "rolling restart": _rolling_restart,
    "all three brokers killed": _all_killed,
}


@pytest.mark.proof
@pytest.mark.parametrize("kind", HARMS)
def test_three_brokers_lose_one_and_all_without_an_event(
    three: Field, tmp_path: Path, bites: Bites, kind: str
) -> None:
    with three.ground(tmp_path, bites) as ground:
        trickle = ground.trickle(ground.traffic(8_000, seed=67), per_s=100)
        ground.wait_for_share(ground.worker(), ground.worker())
        bites.bit(kind, HARMS[kind](three.stack.kafka, ground))
        three.stack.kafka.wait_ready()
        trickle.stop()
        ground.must_be_right()
