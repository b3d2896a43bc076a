"""Where the oracle gets its input: the committed log up to a pinned end, schemas over plain HTTP.

The only part of the oracle that talks to Kafka and to the registry.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Mapping
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tests.faults.oracle.events import Record, WriterSchema

Positions = Mapping[tuple[str, int], int]
_T = TypeVar("_T")
_TIMEOUT_S = 30.0
# No record and no step of a position for so long means an open transaction, or a dead broker.
_STALL_S = 60.0
_LOOK_S = 0.1


class LogReadError(Exception):
    """The log could not be read from offset 0 to the pinned end; the message says where and why."""


class Registry:
    """`GET {url}/schemas/ids/{id}`; each answer is kept."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._answers: dict[int, WriterSchema | None] = {}

    def __call__(self, schema_id: int) -> WriterSchema | None:
        if schema_id not in self._answers:
            self._answers[schema_id] = self._ask(schema_id)
        return self._answers[schema_id]

    def _ask(self, schema_id: int) -> WriterSchema | None:
        request = urllib.request.Request(f"{self._url}/schemas/ids/{schema_id}")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise
        return WriterSchema(answer["schema"], answer.get("schemaType", "AVRO"))


def high_watermarks(bootstrap: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """The end of every partition of the topics, as of now; open transactions are before it."""
    return {at: high for at, (_, high) in _watermarks(bootstrap, topics).items()}


def read_log(
    bootstrap: str, topics: Iterable[str], *, until: Positions | None = None
) -> tuple[list[Record], dict[tuple[str, int], int]]:
    """Every committed record below the pinned end, and that end.

    `until` gives the next offset per partition; without it the end is the high watermark as of
    now. The records of one partition come in offset order.
    """
    marks = _watermarks(bootstrap, topics)
    pinned = {at: high for at, (_, high) in marks.items()} if until is None else dict(until)
    _refuse_gaps(marks, pinned)
    consumer = _consumer(bootstrap, "read_committed")
    try:
        return _read(consumer, {at: end for at, end in pinned.items() if end > 0}), pinned
    finally:
        consumer.close()


def _consumer(bootstrap: str, isolation: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"oracle-{uuid.uuid4()}",
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.message.max.bytes": 8 * 1024 * 1024,
        }
    )


def _watermarks(bootstrap: str, topics: Iterable[str]) -> dict[tuple[str, int], tuple[int, int]]:
    """First and next offset of each partition. A client that reads what is committed would be told
    the last stable offset in place of the end: it can trail what was acknowledged."""
    consumer = _consumer(bootstrap, "read_uncommitted")
    try:
        return {at: _marks(consumer, at) for topic in topics for at in _places(consumer, topic)}
    finally:
        consumer.close()


def _places(consumer: Consumer, topic: str) -> list[tuple[str, int]]:
    metadata = consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return [(topic, partition) for partition in sorted(metadata.partitions)]


def _marks(consumer: Consumer, at: tuple[str, int]) -> tuple[int, int]:
    low_high = consumer.get_watermark_offsets(TopicPartition(*at), timeout=_TIMEOUT_S)
    if low_high is None:
        raise LogReadError(f"{at[0]}/{at[1]}: the broker told no watermarks")
    return low_high


def _refuse_gaps(marks: Mapping[tuple[str, int], tuple[int, int]], pinned: Positions) -> None:
    for at, end in pinned.items():
        low, high = marks.get(at, (0, 0))
        if end > high:
            raise LogReadError(f"{at[0]}/{at[1]}: asked up to {end}, the log ends at {high}")
        if low > 0:
            raise LogReadError(
                f"{at[0]}/{at[1]}: the log begins at {low}; a fold needs offset 0 "
                "(was the topic made with unlimited retention?)"
            )


def _read(consumer: Consumer, ends: dict[tuple[str, int], int]) -> list[Record]:
    records: list[Record] = []
    open_ends = dict(ends)
    seen = dict.fromkeys(ends, 0)
    if ends:
        consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in ends])
    deadline = time.monotonic() + _STALL_S
    while open_ends:
        before = dict(seen)
        for message in consumer.consume(num_messages=5_000, timeout=_LOOK_S):
            error = message.error()
            at = (_known(message.topic()), _known(message.partition()))
            if error is not None:
                _raise_unless_end(error)
                seen[at] = max(seen[at], _known(message.offset()))
                continue
            offset = _known(message.offset())
            seen[at] = offset + 1
            if offset < ends[at]:
                records.append(_record(message, at, offset))
        if seen != before:
            deadline = time.monotonic() + _STALL_S
        elif time.monotonic() > deadline:
            raise LogReadError(f"stalled at {seen} before {ends}: is a transaction open?")
        _close_ended(consumer, open_ends, seen)
    return records


def _close_ended(
    consumer: Consumer, open_ends: dict[tuple[str, int], int], seen: Positions
) -> None:
    """Control records at the tail show as the end of the partition, never as a message."""
    ended = [at for at, end in open_ends.items() if seen[at] >= end]
    for at in ended:
        del open_ends[at]
    if ended:
        consumer.incremental_unassign([TopicPartition(*at) for at in ended])


def _record(message: Message, at: tuple[str, int], offset: int) -> Record:
    _, timestamp_ms = message.timestamp()
    return Record(
        topic=at[0],
        partition=at[1],
        offset=offset,
        timestamp_ms=timestamp_ms,
        key=message.key(),
        value=message.value(),
    )


def _raise_unless_end(error: KafkaError) -> None:
    if error.code() != KafkaError._PARTITION_EOF:
        raise KafkaException(error)


def _known(value: _T | None) -> _T:
    if value is None:
        raise LogReadError("the client gave a message without coordinates")
    return value
