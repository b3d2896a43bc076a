"""What the broker says of its topics: ids, partitions, low and high watermarks.

Stands apart from the consumer because the command line asks the same questions without one, and
because it holds the one choice that freshness rests on: the *high watermark*, asked for with
READ_UNCOMMITTED. The last stable offset, which READ_COMMITTED answers, can trail what a producer
was already told is committed.
"""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, cast

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from ingest.errors import TransientError
from views.positions import Partition

_ELECTION_S: Final = 0.1
"""Until a partition whose leader changes is asked again."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as it exists now. `id` changes when it is deleted and created again."""

    id: str
    partitions: int


def high_watermarks(
    admin: AdminClient, partitions: Iterable[Partition], timeout_s: float
) -> dict[Partition, int]:
    """Per partition the offset after the last record, open transactions and aborted ones included.

    TransientError: the broker did not answer for every partition within the time.
    """
    return _watermarks(admin, partitions, OffsetSpec.latest(), timeout_s)


def low_watermarks(
    admin: AdminClient, partitions: Iterable[Partition], timeout_s: float
) -> dict[Partition, int]:
    """Per partition the first offset that can still be read. Errors as in `high_watermarks`."""
    return _watermarks(admin, partitions, OffsetSpec.earliest(), timeout_s)


def topic_ids(
    admin: AdminClient, topics: Iterable[str], timeout_s: float = 10.0
) -> dict[str, TopicInfo]:
    """The topics that exist, by name; a missing one is left out. TransientError: no answer."""
    names = sorted(set(topics))
    if not names:
        return {}
    try:
        asked = admin.describe_topics(TopicCollection(names), request_timeout=timeout_s)
    except KafkaException as error:
        raise _away("the topics", error) from error
    found = {name: _described(name, future, timeout_s) for name, future in asked.items()}
    return {name: info for name, info in found.items() if info is not None}


def topic_config(
    admin: AdminClient, topic: str, timeout_s: float = 10.0
) -> Mapping[str, str | None]:
    """The settings that apply to a topic, defaults included. TransientError: no answer."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        future = admin.describe_configs([resource], request_timeout=timeout_s)[resource]
        entries = future.result(timeout_s)
    except (KafkaException, TimeoutError) as error:
        raise _away(f"the settings of topic {topic!r}", error) from error
    return {name: entry.value for name, entry in entries.items()}


def cluster_id(admin: AdminClient, topic: str, timeout_s: float = 10.0) -> str:
    """The id of the cluster, asked for with a topic of it, which need not exist.

    Not by describe_cluster: where every broker is fenced, as one is that was frozen, its answer
    names no broker, and librdkafka 2.16 ends the process (rd_kafka_admin_response_parse asserts a
    result that rd_kafka_DescribeClusterResponse_parse did not make). TransientError: no answer, or
    a broker too old to have an id.
    """
    try:
        found = cast("str | None", admin.list_topics(topic, timeout=timeout_s).cluster_id)
    except KafkaException as error:
        raise _away("the cluster", error) from error
    if not found:
        raise TransientError("the broker does not say which cluster it belongs to")
    return str(found)


def answers(options: Mapping[str, str], topic: str, timeout_s: float) -> bool:
    """Whether a client that is made now reaches a broker."""
    return reaches(AdminClient({"log_level": "0", **options}), topic, timeout_s)


def reaches(client: AdminClient | Consumer, topic: str, timeout_s: float) -> bool:
    """Whether this client, as it is, reaches a broker."""
    try:
        client.list_topics(topic, timeout=timeout_s)
    except KafkaException:
        return False
    return True


def _watermarks(
    admin: AdminClient, partitions: Iterable[Partition], spec: OffsetSpec, timeout_s: float
) -> dict[Partition, int]:
    wanted = {
        TopicPartition(topic, partition): spec for topic, partition in sorted(set(partitions))
    }
    until = time.monotonic() + timeout_s
    while wanted:
        try:
            return _listed(admin, wanted, timeout_s)
        except (KafkaException, TimeoutError) as error:
            if not _leader_moves(error) or time.monotonic() + _ELECTION_S > until:
                raise _away("the ends of its partitions", error) from error
        time.sleep(_ELECTION_S)
    return {}


def _listed(
    admin: AdminClient, wanted: Mapping[TopicPartition, OffsetSpec], timeout_s: float
) -> dict[Partition, int]:
    asked = admin.list_offsets(
        dict(wanted), isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=timeout_s
    )
    answers = {tp: future.result(timeout_s) for tp, future in asked.items()}
    return {(tp.topic, tp.partition): int(answer.offset) for tp, answer in answers.items()}


def _leader_moves(error: Exception) -> bool:
    """Whether it is over as soon as the new leader knows of itself: librdkafka's AdminClient
    gives this answer on, where its consumer asks again."""
    return isinstance(error, KafkaException) and error.args[0].code() in (
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    )


def _described(name: str, future: "Future[Any]", timeout_s: float) -> TopicInfo | None:
    try:
        topic = future.result(timeout_s)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise _away(f"topic {name!r}", error) from error
    except TimeoutError as error:
        raise _away(f"topic {name!r}", error) from error
    return TopicInfo(str(topic.topic_id), len(topic.partitions))


def _away(what: str, error: Exception) -> TransientError:
    """KafkaException carries a KafkaError with words; a time-out has none."""
    reason = error.args[0].str() if isinstance(error, KafkaException) else "no answer in time"
    return TransientError(f"the broker does not tell about {what}: {reason}")
