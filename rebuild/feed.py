"""The log as a build reads it: no group, given partitions, and exactly up to a given position.

It is the worker's port (`ingest.ports.LogPort`) around `ingest.consume.Log`. Records behind the
position to stop at are kept, not dropped, so that going on from there needs no new fetch. And
dead letters that are on record go by their state: `Withheld` leaves them out before decoding.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from ingest.claim import BrokerView
from ingest.consume import Log
from ingest.errors import Fault, Reason
from ingest.ports import DecoderPort
from ingest.records import Dead, Item, Record
from ingest.settings import IngestSettings
from views import CATALOGUE
from views.positions import Partition

Partitions = Collection[Partition]
_KEPT_MOST: Final = 20_000
"""Records of a partition that are kept behind the end before it is held back."""
_AT_END_S: Final = 0.01
"""How long a poll waits when all was read: nothing more comes, and the rest is being written."""


def open_log(settings: IngestSettings) -> Log:
    """The topics of the catalogue, read outside the workers' group."""
    options = {
        "fetch.wait.max.ms": "50",  # a swap waits for the last few events
        "fetch.queue.backoff.ms": "20",  # and a bulk for more: it empties the queue in a second
        **settings.consumer_options(),
        "group.id": f"{settings.group_id}-rebuild",
    }
    options.pop("group.instance.id", None)
    return Log(options, settings.admin_options(), CATALOGUE)


class Feed:
    """A log of given partitions that ends, for now, at `until`."""

    def __init__(self, log: Log, until: Mapping[Partition, int]) -> None:
        self._log = log
        self._until = dict(until)
        self._held: dict[Partition, deque[Record]] = {}
        self._full: set[Partition] = set()
        self._begun: dict[Partition, int] = {}
        self.fenced = False
        self.assigned: Callable[[Partitions], None] = _ignore
        self.revoked: Callable[[Partitions], None] = _ignore
        self.lost: Callable[[Partitions], None] = _ignore

    @property
    def must_stop(self) -> Callable[[Partition], None]:
        """Told of partitions that can't be read on from where they are."""
        return self._log.must_stop

    @must_stop.setter
    def must_stop(self, call: Callable[[Partition], None]) -> None:
        self._log.must_stop = call

    def go_on_to(self, until: Mapping[Partition, int]) -> None:
        """Move the end."""
        self._until = dict(until)

    def poll(self, limit: int, timeout_s: float) -> list[Record]:
        """Records before the end, as soon as there are some."""
        ready = self._ready(limit)
        if ready:
            return ready
        is_more = any(offset < self._end(p) for p, offset in self._read_to().items())
        found = self._log.poll(limit, timeout_s if is_more else min(timeout_s, _AT_END_S))
        if not self._held and all(o <= self._end(p) for p, o in self._read_to().items()):
            return found  # as most of a bulk: nothing to look at one by one
        records = []
        for record in found:
            partition = (record.topic, record.partition)
            if partition in self._held or record.offset >= self._end(partition):
                self._keep(partition, record)
            else:
                records.append(record)
        return records

    def _read_to(self) -> dict[Partition, int]:
        """The next offset of every partition that is read."""
        return self._begun | self._log.positions(self._begun)

    def _keep(self, partition: Partition, record: Record) -> None:
        kept = self._held.setdefault(partition, deque())
        kept.append(record)
        if len(kept) >= _KEPT_MOST and partition not in self._full:
            self._full.add(partition)
            self._log.pause([partition])

    def _ready(self, limit: int) -> list[Record]:
        """What was kept and is now before the end."""
        ready: list[Record] = []
        for partition in list(self._held):
            kept, end = self._held[partition], self._end(partition)
            while kept and kept[0].offset < end and len(ready) < limit:
                ready.append(kept.popleft())
            if not kept:
                del self._held[partition]
                if partition in self._full:
                    self._full.discard(partition)
                    self._log.resume([partition])
        return ready

    def _end(self, partition: Partition) -> int:
        return self._until.get(partition, 0)

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets."""
        self._forget(offsets)
        self._begun.update(offsets)
        self._log.start(offsets)

    def drop(self, partitions: Partitions) -> None:
        """Stop reading these partitions."""
        self._forget(partitions)
        self._log.drop(partitions)

    def _forget(self, partitions: Partitions) -> None:
        for partition in partitions:
            self._held.pop(partition, None)
            self._full.discard(partition)
            self._begun.pop(partition, None)

    def pause(self, partitions: Partitions) -> None:
        """Hold these partitions back."""
        self._log.pause(partitions)

    def resume(self, partitions: Partitions) -> None:
        """Read on, except where enough is kept behind the end."""
        self._log.resume([p for p in partitions if p not in self._full])

    def positions(self, partitions: Partitions) -> dict[Partition, int]:
        """The next offset of each partition, behind what was passed, never behind the end."""
        found = self._log.positions(partitions)
        return {
            p: min(self._held[p][0].offset if p in self._held else offset, self._end(p))
            for p, offset in found.items()
        }

    def commit_async(self, _offsets: Mapping[Partition, int]) -> None:
        """There is no group to tell."""

    def confirm_member(self, _offsets: Mapping[Partition, int]) -> bool:
        """Whoever was fenced here has been replaced: another rebuild, or the next step of ours."""
        self.fenced = True
        return False

    def describe(self, partitions: Partitions, timeout_s: float) -> dict[Partition, BrokerView]:
        """What the broker says of partitions."""
        return self._log.describe(partitions, timeout_s)

    def close(self) -> None:
        """Close the consumer, and forget the worker, or each would keep the other alive."""
        self._log.close()
        self.assigned = self.revoked = self.lost = self._log.must_stop = _ignore


class Withheld:
    """A decoder that leaves out what is on record as a dead letter.

    Open and discarded ones stay out of a build; redriven ones are applied from the record, after
    their place in the log was passed, as on the live build.
    """

    def __init__(
        self, decoder: DecoderPort, letters: Mapping[Partition, Mapping[int, Reason]]
    ) -> None:
        self._decoder = decoder
        self.letters = letters

    def decode(self, records: Sequence[Record]) -> list[Item]:
        """See `ingest.decode.Decoder.decode`."""
        if not self.letters:
            return self._decoder.decode(records)
        reasons = [self._reason(record) for record in records]
        wanted = [r for r, reason in zip(records, reasons, strict=True) if reason is None]
        decoded = iter(self._decoder.decode(wanted))
        return [
            next(decoded) if reason is None else _on_record(record, reason)
            for record, reason in zip(records, reasons, strict=True)
        ]

    def decode_again(self, items: list[Item], *, afresh: bool) -> bool:
        """See `ingest.decode.Decoder.decode_again`; what is on record is not tried again there."""
        return self._decoder.decode_again(items, afresh=afresh)

    def _reason(self, record: Record) -> Reason | None:
        letters = self.letters.get((record.topic, record.partition))
        return None if letters is None else letters.get(record.offset)


def _on_record(record: Record, reason: Reason) -> Dead:
    fault = Fault(reason, "on record as a dead letter")
    return Dead(record, fault, None, 1, on_record=True)


def _ignore(_value: Any) -> None:
    """Nobody has asked to be told."""
