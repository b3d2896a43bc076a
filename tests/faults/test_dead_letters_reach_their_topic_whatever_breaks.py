"""Dead letters on their way to `<topic>.dlq`: a kill after the delivery and before its note."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Final

from confluent_kafka import Consumer, KafkaError, TopicPartition

from ingest.failpoints import IN_OUTBOX
from tests.faults.harness.ground import Ground
from tests.fixtures.waiting import PATIENCE_S, eventually

KILLED: Final = "worker killed at {}"
_UNSENT: Final = "SELECT count(*) FROM ingest.outbox WHERE sent_at IS NULL"


def _told(ground: Ground, topic: str) -> Counter[str]:
    """How often each dead letter lies in its topic, by its id."""
    options = {"bootstrap.servers": ground.place.bootstrap, "group.id": "reader of dead letters"}
    consumer = Consumer({**options, "enable.partition.eof": True, "auto.offset.reset": "error"})
    try:
        known = consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in known])
        found: Counter[str] = Counter()
        ended: set[int | None] = set()
        while len(ended) < len(known):
            for message in consumer.consume(500, timeout=1.0):
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error.str()
                    ended.add(message.partition())
                else:
                    found[_id(message.headers())] += 1
        return found
    finally:
        consumer.close()


def _id(headers: object) -> str:
    assert isinstance(headers, list)
    return str(next(value.decode() for name, value in headers if name == "viewkeeper-id"))


def test_a_letter_whose_delivery_was_not_noted_is_sent_again_under_the_same_id(
    ground: Ground,
) -> None:
    ground.send(ground.traffic(150, seed=86, poison=0.2))
    doomed = ground.doomed(f"{IN_OUTBOX}:kill:1")
    assert doomed.process.wait(PATIENCE_S) == -signal.SIGKILL, doomed.log
    assert ground.met(doomed) == [f"{IN_OUTBOX}:kill:1"]
    ground.bites.bit(KILLED.format(IN_OUTBOX))
    ground.worker()
    ground.must_be_right()
    eventually(lambda: ground.ask(_UNSENT) == [(0,)], PATIENCE_S, "every letter was sent")
    letters = ground.ask(
        "SELECT topic, topic_id || ':' || partition || ':' || \"offset\" FROM ingest.dead_letters"
    )
    repeated = 0
    for topic in ("orders", "payments"):
        told = _told(ground, f"{topic}.dlq")
        assert told.keys() == {letter for of, letter in letters if of == topic}
        repeated += sum(times > 1 for times in told.values())
    assert repeated > 0, "what was delivered before the kill was not sent again"
