"""What the worker needs of the world: a log, a store, a decoder, a clock.

Apart from the page that uses them, because each has several makers: the real one, the one of a
rebuild, and the fake of the simulator.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from ingest.claim import BrokerView, Claimed, Observation, Refusal
from ingest.fold import Folded
from ingest.records import Item, Record
from views.positions import Partition


class LogPort(Protocol):
    """What the worker needs of Kafka; `ingest.consume.Log` is the real one."""

    assigned: Callable[[Collection[Partition]], None]
    revoked: Callable[[Collection[Partition]], None]
    lost: Callable[[Collection[Partition]], None]
    must_stop: Callable[[Partition], None]

    def poll(self, limit: int, timeout_s: float) -> list[Record]: ...
    def start(self, offsets: Mapping[Partition, int]) -> None: ...
    def drop(self, partitions: Collection[Partition]) -> None: ...
    def pause(self, partitions: Collection[Partition]) -> None: ...
    def resume(self, partitions: Collection[Partition]) -> None: ...
    def positions(self, partitions: Collection[Partition]) -> dict[Partition, int]: ...
    def commit_async(self, offsets: Mapping[Partition, int]) -> None: ...
    def confirm_member(self, offsets: Mapping[Partition, int]) -> bool: ...
    def describe(
        self, partitions: Collection[Partition], timeout_s: float
    ) -> dict[Partition, BrokerView]: ...


class StorePort(Protocol):
    """What the worker needs of the database; `ingest.store.Store` is the real one.

    `write` and `observe` return at once; their outcome is the future's.
    """

    def claim(
        self,
        brokers: Mapping[Partition, BrokerView],
        still_mine: Mapping[Partition, int],
    ) -> dict[Partition, Claimed | Refusal]: ...
    def write(
        self,
        folded: Folded,
        epochs: Mapping[Partition, int],
        ends: Mapping[Partition, Observation],
    ) -> "Future[None]": ...
    def observe(
        self, ends: Mapping[Partition, Observation], epochs: Mapping[Partition, int]
    ) -> "Future[None]": ...
    def forget_build(self) -> None: ...


class DecoderPort(Protocol):
    """What the worker needs of the decoder; `ingest.decode.Decoder` is the real one."""

    def decode(self, records: Sequence[Record]) -> list[Item]: ...
    def decode_again(self, items: list[Item], *, afresh: bool) -> bool: ...


class Clock(Protocol):
    """Seconds that only go forward, for waiting. Decides nothing about events."""

    def __call__(self) -> float: ...
