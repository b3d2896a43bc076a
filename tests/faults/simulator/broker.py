"""A fake Kafka: partitions with gaps, and a consumer group whose members may not know they are out.

The consumer follows what librdkafka does where it matters to the worker: callbacks run inside
`poll`, a revoked partition reaches its next owner only after its last one let it go, a member that
was expelled goes on reading what it has until it notices, and the position moves past trailing
control records at the end of a partition.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from ingest.claim import BrokerView
from ingest.errors import TransientError
from ingest.records import Record
from tests.faults.simulator.chance import Chance
from views.positions import Partition

GOOD, POISON, UNREADABLE, SECOND_TRY, THIRD_TRY = range(5)
"""What a record is: good; refused by the database; never readable; readable when tried again."""
DEAD_IN_THE_END = {POISON, UNREADABLE}


@dataclass(slots=True)
class Content:
    """One partition: its records at growing offsets with gaps, and when each was acknowledged."""

    offsets: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    low: int = 0
    high: int = 0

    def below(self, offset: int) -> list[int]:
        """The offsets of the records before an offset."""
        return self.offsets[: bisect_left(self.offsets, offset)]

    def seen_by(self, at: float) -> int:
        """How many records were acknowledged up to a time."""
        return bisect_right(self.times, at)


class Broker:
    """The partitions and the group's coordinator."""

    def __init__(self, partitions: Collection[Partition], chance: Chance) -> None:
        self.chance = chance
        self.content = {partition: Content() for partition in partitions}
        self.kinds: dict[tuple[str, int, int], int] = {}
        self.down = False
        self.members: list[Consumer] = []
        self.owner: dict[Partition, Consumer | None] = dict.fromkeys(partitions)
        self.target: dict[Partition, Consumer | None] = dict.fromkeys(partitions)

    def append(self, partition: Partition, at: float, *, kind: int | None = None) -> None:
        """A producer's record, and sometimes control records before or behind it."""
        content, chance = self.content[partition], self.chance
        if chance.one_in(4):
            content.high += 1 + chance.below(2)
        offset = content.high
        if kind is None:
            kind = GOOD if chance.below(8) else 1 + chance.below(4)
        topic, number = partition
        self.kinds[topic, number, offset] = kind
        content.offsets.append(offset)
        content.times.append(at)
        content.records.append(Record(topic, number, offset, b"k", b"\0%d" % offset, (), offset, 0))
        content.high = offset + 1 + (chance.below(2) if chance.one_in(4) else 0)

    def rebalance(self) -> None:
        """The coordinator deals the partitions anew; members learn of it when they poll."""
        members = self.members
        for partition in self.target:
            if not members:
                self.target[partition] = None
            elif self.target[partition] not in members or self.chance.one_in(2):
                self.target[partition] = members[self.chance.below(len(members))]

    def join(self, consumer: "Consumer") -> None:
        """A new member, or one that comes back."""
        self.members.append(consumer)
        consumer.expelled = consumer.fenced = False
        self.rebalance()

    def expel(self, consumer: "Consumer") -> None:
        """A member's session is over. It learns of it later, or never."""
        if consumer in self.members:
            self.members.remove(consumer)
            consumer.expelled = True
            for partition, owner in self.owner.items():
                if owner is consumer:
                    self.owner[partition] = None
            self.rebalance()


def _nobody(_partitions: object) -> None:
    """Replaced by the worker."""


class Consumer:
    """`ingest.ports.LogPort`, as one member of the group sees it."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker = broker
        self.name = name
        self.expelled = True
        self.fenced = False
        """Was fenced, and has not asked the coordinator since."""
        self.held: set[Partition] = set()
        self._mine: set[Partition] = set()
        self._at: dict[Partition, int] = {}
        self._position: dict[Partition, int] = {}
        self.assigned: Callable[[Collection[Partition]], None] = _nobody
        self.revoked: Callable[[Collection[Partition]], None] = _nobody
        self.lost: Callable[[Collection[Partition]], None] = _nobody
        self.must_stop: Callable[[Partition], None] = _nobody

    def poll(self, limit: int, timeout_s: float) -> list[Record]:
        broker = self._broker
        if broker.down or self._rebalanced():
            return []
        found: list[Record] = []
        for partition in list(self._at):
            if partition not in self.held and partition in self._at:
                found += self._fetched(partition, limit - len(found))
                if len(found) >= limit:
                    break
        return found

    def _rebalanced(self) -> bool:
        """Callbacks of this poll; an expelled member may not have noticed yet."""
        broker = self._broker
        if self.expelled:
            if broker.chance.one_in(3):
                return False
            self._leave(self.lost, sorted(self._mine))
            broker.join(self)
            return True
        going = [p for p in sorted(self._mine) if broker.target[p] is not self]
        if going:
            self._leave(self.revoked, going)
            for partition in going:
                broker.owner[partition] = None
            return True
        coming = [p for p, to in broker.target.items() if to is self and broker.owner[p] is None]
        if coming:
            for partition in coming:
                broker.owner[partition] = self
            self._mine.update(coming)
            self.assigned(coming)
            return True
        return False

    def _leave(
        self, told: Callable[[Collection[Partition]], None], partitions: list[Partition]
    ) -> None:
        if partitions:
            told(partitions)
            self.drop(partitions)
            self._mine.difference_update(partitions)

    def _fetched(self, partition: Partition, limit: int) -> Iterator[Record]:
        content, at = self._broker.content[partition], self._at[partition]
        if at < content.low:
            self.must_stop(partition)
            return
        first = bisect_left(content.offsets, at)
        many = (
            self._broker.chance.below(limit + 1)
            if limit < 3
            else 1 + self._broker.chance.below(limit)
        )
        found = content.records[first : first + many]
        if found:
            self._at[partition] = self._position[partition] = found[-1].offset + 1
            yield from found
        elif first == len(content.offsets) and at < content.high and self._broker.chance.below(3):
            self._at[partition] = self._position[partition] = content.high

    def start(self, offsets: Mapping[Partition, int]) -> None:
        self.drop(offsets)
        self._at.update(offsets)

    def drop(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._at.pop(partition, None)
            self._position.pop(partition, None)
            self.held.discard(partition)

    def pause(self, partitions: Collection[Partition]) -> None:
        self.held.update(p for p in partitions if p in self._at)

    def resume(self, partitions: Collection[Partition]) -> None:
        self.held.difference_update(partitions)

    def positions(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        return {p: at for p, at in self._position.items() if p in partitions}

    def commit_async(self, offsets: Mapping[Partition, int]) -> None:
        """For lag tools; nothing rests on it."""

    def confirm_member(self, offsets: Mapping[Partition, int]) -> bool:
        if not offsets:
            self.fenced = False
            return True
        if self._broker.down:
            raise TransientError("the group can't be asked")
        if self.expelled:
            return False
        if self._broker.chance.one_in(8):
            raise TransientError("a rebalance is under way")
        if self._broker.chance.one_in(16):
            # A commit that crosses the answer to a join is of an old generation: the client gives
            # up its partitions and joins again.
            self._broker.expel(self)
            return False
        self.fenced = False
        return True

    def describe(
        self, partitions: Collection[Partition], timeout_s: float
    ) -> dict[Partition, BrokerView]:
        if self._broker.down:
            raise TransientError("the broker can't be asked")
        content = self._broker.content
        return {
            p: BrokerView(cluster_id="c", topic_id=p[0], low=content[p].low, high=content[p].high)
            for p in partitions
        }

    def close(self) -> None:
        """Leave the group in order."""
        if not self.expelled:
            self._leave(self.revoked, sorted(self._mine))
            self._broker.expel(self)
