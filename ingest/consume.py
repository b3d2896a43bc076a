"""The only user of the Kafka consumer: join the group, read from given offsets, let go.

Where to read from is never asked of Kafka: a partition is started at the offset that its position
row names. Group offsets are committed for lag tools only and never read back.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from ingest import watermarks
from ingest.claim import BrokerView, refused_compaction
from ingest.errors import RefusedError, TransientError
from ingest.ports import Clock
from ingest.records import EARLIEST_MS, LATEST_MS, Record
from views.model import Catalogue
from views.positions import Partition

_log = structlog.get_logger(__name__)

_NOT_A_MEMBER = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._NO_OFFSET,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._STATE,
}
_CANNOT_READ_ON = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}

SAID_AGAIN_S = 5.0
"""How often the client's same problem is told."""
GROUP_TOLD_S = 1.0
"""How often the group is told where we are. After every batch, it takes the broker as long as to
serve what is read."""
Partitions = Collection[Partition]


class Log:
    """The topics of the catalogue, read as a member of a consumer group.

    The three callbacks run inside `poll` and `close`: `assigned` names new partitions, which read
    nothing until `start`; after `revoked` and `lost` return they are no longer read. `must_stop`
    is told of partitions that can't be read on from where they are.
    """

    def __init__(
        self,
        options: Mapping[str, str],
        admin_options: Mapping[str, str],
        catalogue: Catalogue,
    ) -> None:

        self._consumer = Consumer({**options, **_callbacks(Reports())})
        self._admin = AdminClient({**admin_options, **_callbacks(_ignore)})
        self._topics = tuple(catalogue.topics)
        self._whole = {s.topic for s in catalogue.streams if not s.compactable}
        self._started: set[Partition] = set()
        self._untold: dict[Partition, int] = {}
        self._told_at_s = 0.0
        self.assigned: Callable[[Partitions], None] = _ignore
        self.revoked: Callable[[Partitions], None] = _ignore
        self.lost: Callable[[Partitions], None] = _ignore
        self.must_stop: Callable[[Partition], None] = _ignore

    def join(self) -> None:
        """Become a member of the group."""
        self._consumer.subscribe(
            list(self._topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def poll(self, limit: int, timeout_s: float) -> list[Record]:
        """Records as soon as there are some, at most `limit`; none after `timeout_s`."""
        if self._untold and time.monotonic() - self._told_at_s >= GROUP_TOLD_S:
            self._tell_group()
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(limit - 1, 0)] if limit > 1 else [first]
        if any(message.error() is not None for message in messages):
            messages = [message for message in messages if not self._is_problem(message)]
        return [_record(message) for message in messages]

    def _is_problem(self, message: Message) -> bool:
        error = message.error()
        if error is not None:
            self._problem(message, error)
        return error is not None

    def _problem(self, message: Message, error: KafkaError) -> None:
        topic, partition = message.topic(), message.partition()
        _log.warning("kafka reports a problem", topic=topic, partition=partition, error=error.str())
        if error.code() in _CANNOT_READ_ON and topic is not None and partition is not None:
            self.must_stop((topic, partition))

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets, whether they were held back before or not."""
        self.drop([p for p in offsets if p in self._started])
        starts = _positions(offsets)
        self._consumer.incremental_assign(starts)
        # A pause outlives the assignment that it was made in (librdkafka 2.16): nothing would come.
        self._consumer.resume(starts)
        self._started |= offsets.keys()

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Stop reading these partitions and forget what was fetched of them."""
        going = sorted(set(partitions) & self._started)
        if going:
            self._consumer.incremental_unassign([TopicPartition(t, p) for t, p in going])
            self._started -= set(going)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Hold these partitions back; polling goes on, so the membership stays."""
        held = [TopicPartition(t, p) for t, p in sorted(set(partitions) & self._started)]
        if held:
            self._consumer.pause(held)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Read on where `pause` stopped."""
        held = [TopicPartition(t, p) for t, p in sorted(set(partitions) & self._started)]
        if held:
            self._consumer.resume(held)

    def positions(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The next offset of each partition, behind control and aborted records that were passed.

        Partitions that have not read anything yet are left out.
        """
        asked = [TopicPartition(t, p) for t, p in sorted(set(partitions) & self._started)]
        if not asked:
            return {}
        found = self._consumer.position(asked)
        return {(tp.topic, tp.partition): tp.offset for tp in found if tp.offset >= 0}

    def commit_async(self, offsets: Mapping[Partition, int]) -> None:
        """Tell the group where we are, for lag tools: within a second, or when we leave it. Nothing
        rests on it."""
        self._untold.update(offsets)

    def _tell_group(self) -> None:
        untold, self._untold, self._told_at_s = self._untold, {}, time.monotonic()
        try:
            self._consumer.commit(offsets=_positions(untold), asynchronous=True)
        except KafkaException as error:
            _log.info("group offsets not committed", error=str(error))

    def confirm_member(self, offsets: Mapping[Partition, int]) -> bool:
        """Whether the coordinator still knows us: it refuses a commit of an old generation.

        TransientError: it can't be asked, or a rebalance is under way.
        """
        if not offsets:
            return True
        try:
            self._consumer.commit(offsets=_positions(offsets), asynchronous=False)
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() in _NOT_A_MEMBER:
                return False
            raise TransientError(f"the group can't be asked: {reason.str()}") from error
        return True

    def describe(
        self, partitions: Iterable[Partition], timeout_s: float
    ) -> dict[Partition, BrokerView]:
        """What the broker says of partitions. TransientError: it can't be asked, or lacks one."""
        wanted = sorted(set(partitions))
        if not wanted:
            return {}
        cluster = watermarks.cluster_id(self._admin, wanted[0][0], timeout_s)
        topics = watermarks.topic_ids(self._admin, {topic for topic, _ in wanted}, timeout_s)
        missing = sorted({topic for topic, _ in wanted} - topics.keys())
        if missing:
            raise TransientError(f"topic {', '.join(missing)} does not exist on the broker")
        low = watermarks.low_watermarks(self._admin, wanted, timeout_s)
        high = watermarks.high_watermarks(self._admin, wanted, timeout_s)
        compacted = {topic: self._compaction(topic, timeout_s) for topic in topics}
        return {
            p: BrokerView(
                cluster_id=cluster,
                topic_id=topics[p[0]].id,
                low=low[p],
                high=high[p],
                compaction=compacted[p[0]],
            )
            for p in wanted
        }

    def all_partitions(self, timeout_s: float) -> tuple[Partition, ...]:
        """Every partition of the catalogue's topics that exist."""
        found = watermarks.topic_ids(self._admin, self._topics, timeout_s)
        return tuple(
            (topic, number) for topic, info in found.items() for number in range(info.partitions)
        )

    def ends(self, partitions: Iterable[Partition], timeout_s: float) -> dict[Partition, int]:
        """High watermarks, asked for now. TransientError: the broker can't be asked."""
        return watermarks.high_watermarks(self._admin, partitions, timeout_s)

    def refuse_compacted(self, timeout_s: float) -> None:
        """RefusedError where a topic is compacted whose key does not identify its events."""
        for topic in sorted(self._whole):
            policy = self._compaction(topic, timeout_s)
            if policy is not None:
                raise RefusedError(refused_compaction(topic, policy))

    def _compaction(self, topic: str, timeout_s: float) -> str | None:
        """The cleanup.policy of a topic that is compacted and must not be; None: all is well."""
        if topic not in self._whole:
            return None
        config = watermarks.topic_config(self._admin, topic, timeout_s)
        policy = config.get("cleanup.policy") or ""
        return policy if "compact" in policy else None

    def reaches(self, timeout_s: float) -> bool:
        """Whether both clients, as they are, reach a broker. May be called by any thread."""
        topic = self._topics[0]
        clients = (self._consumer, self._admin)
        return all(watermarks.reaches(client, topic, timeout_s) for client in clients)

    def learn_topics(self, timeout_s: float) -> None:
        """Have the consumer know every topic. Of one that is started later than others it would
        learn with a delay of up to a second (librdkafka 2.16). What is away now is met later."""
        for topic in self._topics:
            watermarks.reaches(self._consumer, topic, timeout_s)

    def close(self) -> None:
        """Leave the group. The callbacks run once more."""
        self._consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Nothing is read until the position rows were read; to assign nothing is an answer too.
        consumer.incremental_assign([])
        self.assigned(_names(partitions))

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.revoked(_names(partitions))
        if self._untold:
            self._tell_group()
        self._let_go(partitions)

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.lost(_names(partitions))
        self._untold.clear()
        self._let_go(partitions)

    def _let_go(self, partitions: list[TopicPartition]) -> None:
        going = set(_names(partitions)) & self._started
        self._consumer.incremental_unassign([TopicPartition(t, p) for t, p in sorted(going)])
        self._started -= going


_new = tuple.__new__  # what `Record(...)` comes to, without a call between


def _record(message: Message) -> Record:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    headers, epoch, at_ms = message.headers(), message.leader_epoch(), message.timestamp()[1]
    return _new(
        Record,
        (
            topic,
            partition,
            offset,
            message.key(),
            message.value(),
            tuple(_headers(headers)) if headers else (),
            at_ms if EARLIEST_MS <= at_ms <= LATEST_MS else min(max(at_ms, EARLIEST_MS), LATEST_MS),
            -1 if epoch is None else epoch,
        ),
    )


def _headers(given: Any) -> Iterable[tuple[str, bytes | None]]:
    """Header values as bytes; the client's types also allow texts, which a broker never gives."""
    return given or ()


def _names(partitions: Iterable[TopicPartition]) -> list[Partition]:
    return [(tp.topic, tp.partition) for tp in partitions]


def _positions(offsets: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(t, p, offset) for (t, p), offset in sorted(offsets.items())]


def _callbacks(on_error: Callable[[KafkaError], None]) -> dict[str, Any]:
    return {"error_cb": on_error}


def _ignore(_value: Any) -> None:
    """Nobody has asked to be told."""


class Reports:
    """What the client reports, each kind once in a while: away from its brokers, librdkafka 2.16
    reports some twenty times a second."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._said_at_s: dict[int, float] = {}

    def __call__(self, error: KafkaError) -> None:
        said_at_s, now_s = self._said_at_s.get(error.code()), self._clock()
        if said_at_s is None or now_s - said_at_s >= SAID_AGAIN_S:
            self._said_at_s[error.code()] = now_s
            _log.warning("kafka client reports a problem", error=error.str(), fatal=error.fatal())
