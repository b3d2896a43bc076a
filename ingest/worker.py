"""The page of the worker: for each batch, decode, fold, write; and what becomes of each outcome.

    read → decode → fold → write          outcome        move
                                          committed      go on
                                          fenced         find out whether we are still a member
                                          refused batch  halve it until the one record is alone
                                          transient      wait, then ask the position rows

There is one way back from every failure: let go of the partitions, read what their position rows
say under a new epoch, and start reading there. Nothing is concluded from an error itself, least of
all from one at COMMIT. While one batch is written the next is folded, and the one after it is read.

The worker does no I/O of its own: the log, the store and the decoder are handed in. The simulator
of `tests/faults/` runs this same page against fakes that fail in every way a real one can.
"""

import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, takewhile
from typing import Any

import structlog

from ingest.breaker import Course, Stop, judge
from ingest.claim import Claimed, Observation, Refusal
from ingest.errors import (
    BatchRefusedError,
    Fault,
    FencedError,
    Reason,
    RefusedError,
    TransientError,
)
from ingest.failpoints import AFTER_DECODE, AFTER_POLL, IN_REVOKE, reached
from ingest.fold import Advance, Folded, fold
from ingest.letters import Recorded, as_recorded
from ingest.metrics import METRICS
from ingest.ports import Clock, DecoderPort, LogPort, StorePort
from ingest.records import Dead, Item, Record
from ingest.status import Status
from views.positions import Partition, PositionVector

_log = structlog.get_logger(__name__)

IDLE_POLL_S = 0.1
BUSY_POLL_S = 0.01
FIRST_ROWS = 2_500
"""The first batch is small, so that the database does not wait for it; each next one is doubled."""
READ_AT_ONCE = 2_000
"""Records read and decoded in one go; small enough to keep the group's heartbeat going."""
BROKER_TIMEOUT_S = 5.0
REVOKE_BUDGET_S = 20.0
"""How long a revoke waits for the batch that is being written."""
REFUSED_AGAIN_S = 5.0
"""How often it is looked whether a partition may be read after all: an operator mended it."""
_FAR = 1 << 63
"""Behind every offset."""
_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 0.1, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a batch: records, bytes, and how long it may wait to fill; and its third try."""

    rows: int
    size_bytes: int
    linger_s: float
    retry_pause_s: float


@dataclass(slots=True)
class Owned:
    """A partition that this worker owns, as it last read or wrote its row."""

    epoch: int
    committed: int
    read_to: int
    course: Course
    letters: Mapping[int, Recorded]
    observations: list[Observation] = field(default_factory=list)

    def complete_as_of(self, end: int) -> datetime | None:
        """The latest time of which everything acknowledged is in, once `end` is reached."""
        reached = [seen.at for seen in self.observations if seen.high <= end]
        return max(reached, default=None)

    def observed(self, seen: Observation) -> None:
        """Remember an end until the position has reached it."""
        self.observations = [o for o in self.observations if o.high > self.committed]
        if len(self.observations) >= 64:
            del self.observations[1::2]
        self.observations.append(seen)


@dataclass(slots=True)
class Gather:
    """Decoded records on their way into a batch, and when the first of them came."""

    items: list[Item] = field(default_factory=list)
    size_bytes: int = 0
    since_s: float = 0.0


@dataclass(slots=True)
class Batch:
    """A gather that nothing joins any more, while it ripens and waits for the writer.

    `ends` is, per partition, the offset behind all that was read or passed when it was closed.
    What is found out about it follows from `items` and from the batch that is being written.
    """

    items: list[Item]
    ends: Mapping[Partition, int]
    tried_again: bool = False
    ripe_at_s: float = 0.0
    folded: Folded | None = None
    kept: Sequence[Item] = ()
    last: Mapping[Partition, Record] = field(default_factory=dict)
    courses: Mapping[Partition, Course] = field(default_factory=dict)
    stops: Mapping[Partition, Stop] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Writing:
    """What the store has in hand."""

    future: Future[None]
    folded: Folded
    items: Sequence[Item]
    courses: Mapping[Partition, Course]


@dataclass(slots=True)
class Outage:
    """Something that the worker needs is away: why, and when it is tried again."""

    reason: str
    tries: int
    again_at_s: float


class Worker:
    """One worker of the group. Call `step` until there is no reason to go on."""

    def __init__(
        self,
        *,
        log: LogPort,
        store: StorePort,
        decoder: DecoderPort,
        views: Mapping[str, str],
        clock: Clock,
        limits: Limits,
        status: Status,
        until: PositionVector | None = None,
    ) -> None:
        self._kafka = log
        self._store = store
        self._decoder = decoder
        self._views = views
        self._clock = clock
        self._limits = limits
        self._status = status
        self._until = None if until is None else until.next_offsets
        self._limit = min(FIRST_ROWS, limits.rows)
        self._owned: dict[Partition, Owned] = {}
        self._told = False
        self._to_claim: dict[Partition, int | None] = {}
        self._last: dict[Partition, int] = {}
        self._courses: dict[Partition, tuple[int, Course]] = {}
        self._refused: dict[Partition, int] = {}
        self._refused_again_at_s = 0.0
        self._paused: set[Partition] = set()
        self._unconfirmed = False
        self._undecoded: list[Record] = []
        self._gather = Gather()
        self._drained = True
        self._condemned: dict[tuple[str, int, int], Fault] = {}
        self._batch: Batch | None = None
        self._write: Writing | None = None
        self._note: Future[None] | None = None
        self._to_note: dict[Partition, Observation] = {}
        self._outage: Outage | None = None
        log.assigned = self._on_assigned
        log.revoked = self._on_revoked
        log.lost = self._on_lost
        log.must_stop = self._reread

    # The page.

    def step(self) -> None:
        """One turn: settle what was written, read, decode, and hand the next batch to the store.

        RefusedError: going on would be wrong.
        """
        self._settle()
        if self._outage is not None:
            self._wait_out()
            return
        try:
            self._confirm()
            self._claim()
            self._read()
            self._close()
            self._hand_over()
        except TransientError as error:
            self._suffer(error)

    def finished(self) -> bool:
        """Whether every partition that this worker owns has reached the position to stop at.

        Never before it was told which ones those are; it may be none. Never while one is refused:
        who waits for the end would take that for success.
        """
        if self._until is None or self._write is not None or self._to_claim or self._refused:
            return False
        return self._told and all(
            owned.committed >= self._until.get(partition, 0)
            for partition, owned in self._owned.items()
        )

    def positions(self) -> dict[Partition, int]:
        """The committed position of each owned partition."""
        return {partition: owned.committed for partition, owned in self._owned.items()}

    def observe(self, ends: Mapping[Partition, Observation]) -> None:
        """Take ends of partitions that were just asked for."""
        for partition, seen in ends.items():
            if partition in self._owned:
                self._owned[partition].observed(seen)
                self._to_note[partition] = seen

    def hold(self, paused: Collection[Partition]) -> None:
        """Hold back the partitions that an operator paused or that are stopped; let go others.

        Those that were refused for another reason, or are no longer stopped, are claimed again
        after a while, unless somebody else took them over.
        """
        if self._clock() >= self._refused_again_at_s:
            self._refused_again_at_s = self._clock() + REFUSED_AGAIN_S
            again = self._refused.keys() - set(paused)
            self._to_claim.update({p: self._refused[p] for p in again})
        newly = (set(paused) & self._owned.keys()) - self._paused
        resumed = self._paused - set(paused)
        self._forget_gathered(newly)
        self._kafka.drop(newly)
        self._paused = (self._paused | newly) - resumed
        # What was read and dropped is read again: the position is where the rows are.
        self._kafka.start({p: self._owned[p].read_to for p in resumed & self._owned.keys()})

    def doubt(self, partitions: Collection[Partition]) -> None:
        """Ask the rows and the broker again before going on: these may be another log by now."""
        for partition in partitions:
            self._reread(partition)

    def finish(self) -> None:
        """Wait for the batch that is being written, and hand over no other."""
        self._await_write()
        self._settle()

    def _await_write(self) -> None:
        if self._write is not None:
            _wait(self._write.future, REVOKE_BUDGET_S)

    # Read and decode.

    def _read(self) -> None:
        if self._undecoded:
            self._take(self._undecoded)
        room = self._limit - len(self._gather.items)
        if room <= 0 or self._gather.size_bytes >= self._limits.size_bytes:
            self._drained = False
            self._wait_for_room()
            return
        limit = min(room, READ_AT_ONCE)
        records = self._kafka.poll(limit, self._poll_timeout_s())
        self._drained = len(records) < limit
        self._take(self._wanted(records))

    def _poll_timeout_s(self) -> float:
        if self._write is not None:
            if self._gather.items and self._drained:
                _wait(self._write.future, BUSY_POLL_S)  # what comes meanwhile comes in one go
            return 0.0 if self._gather.items else BUSY_POLL_S
        if self._batch is not None or not self._owned:
            return BUSY_POLL_S  # an assignment does not end a poll
        return 0.0 if self._gather.items else IDLE_POLL_S

    def _wait_for_room(self) -> None:
        """The gather is full and the batch before it is not with the writer yet."""
        if self._write is not None:
            _wait(self._write.future, IDLE_POLL_S)
        if self._write is None or not self._write.future.done():
            # Polling keeps the membership. Pausing would throw away what was fetched ahead.
            timeout_s = 0.0 if self._write is not None else BUSY_POLL_S
            self._take(self._wanted(self._kafka.poll(1, timeout_s)))

    def _wanted(self, records: list[Record]) -> list[Record]:
        """The records of owned partitions that were not read before and are not behind the end."""
        bounds = {
            partition: (owned.read_to, self._last_wanted(partition))
            for partition, owned in self._owned.items()
            if partition not in self._paused
        }
        return [
            record
            for record in records
            if (bound := bounds.get((record.topic, record.partition))) is not None
            and bound[0] <= record.offset < bound[1]
        ]

    def _last_wanted(self, partition: Partition) -> int:
        return _FAR if self._until is None else self._until.get(partition, 0)

    def _take(self, records: list[Record]) -> None:
        """Decode records into the gather. What can't be decoded now is kept and tried again."""
        if not records:
            return
        self._undecoded = records
        reached(AFTER_POLL)
        items = self._decoder.decode(records)
        reached(AFTER_DECODE)
        self._undecoded = []
        gather = self._gather
        if not gather.items:
            gather.since_s = self._clock()
        if self._condemned or any(owned.letters for owned in self._owned.values()):
            items = [self._judged(item) for item in items]
        gather.items += items
        gather.size_bytes += _size_bytes(items)
        for partition, offset in {(r.topic, r.partition): r.offset for r in records}.items():
            self._owned[partition].read_to = offset + 1

    def _judged(self, item: Item) -> Item:
        """An item as what was found out before about its record makes it."""
        record = item.record
        fault = self._condemned.get((record.topic, record.partition, record.offset))
        if fault is not None:
            return Dead(record, fault, None, 1)
        letters = self._owned[record.topic, record.partition].letters
        return as_recorded(item, letters) if letters else item

    # Fold and write.

    def _close(self) -> None:
        """Close the gather where a batch can be made of it, so that the next one can begin.

        What was polled past the limit, to keep the membership, is the beginning of the next one.
        """
        if self._batch is not None or self._undecoded or not self._worth_closing():
            return
        passed = self._kafka.positions(self._owned)
        ends = {p: max(owned.read_to, passed.get(p, 0)) for p, owned in self._owned.items()}
        most = self._most()
        items, more = self._gather.items[:most], self._gather.items[most:]
        for item in reversed(more):
            ends[item.record.topic, item.record.partition] = item.record.offset
        self._batch = Batch(items, ends)
        self._gather = Gather(more, _size_bytes(more), self._gather.since_s)

    def _most(self) -> int:
        """How many of the gathered fit into a batch; at least one, however large it is."""
        gather, most_bytes = self._gather, self._limits.size_bytes
        if gather.size_bytes <= most_bytes:
            return self._limit
        upto = accumulate(_size_bytes([item]) for item in gather.items)
        fitting = sum(1 for _ in takewhile(lambda size: size <= most_bytes, upto))
        return min(self._limit, max(1, fitting))

    def _worth_closing(self) -> bool:
        """Whether it is full; or, with the writer free, has waited long enough or all was read."""
        gather, limits = self._gather, self._limits
        if len(gather.items) >= self._limit or gather.size_bytes >= limits.size_bytes:
            return True
        if self._write is not None:
            return False
        old = self._clock() - gather.since_s >= limits.linger_s
        return not gather.items or old or self._drained

    def _hand_over(self) -> None:
        batch = self._batch
        if batch is None or not self._ripe(batch):
            return
        folded = batch.folded or self._fold(batch)
        if self._write is not None or self._note_under_way():
            return
        self._batch = None
        folded.advances.update(self._advances(batch))
        ends, self._to_note = self._to_note, {}
        if folded.advances:
            for partition, advance in folded.advances.items():
                owned = self._owned[partition]
                owned.read_to = max(owned.read_to, advance.end)
            future = self._store.write(folded, self._epochs(folded.advances | ends), ends)
            self._write = Writing(future, folded, batch.kept, batch.courses)
        elif ends:
            self._note = self._store.observe(ends, self._epochs(ends))

    def _note_under_way(self) -> bool:
        """Whether a note of ends is being written, or has just told that we are fenced."""
        if self._note is None:
            return False
        if not self._note.done():
            return True
        note, self._note = self._note, None
        try:
            note.result()
        except FencedError as error:
            self._fenced(error)
            return True
        except TransientError:
            self._start_over()
            raise
        return False

    def _ripe(self, batch: Batch) -> bool:
        """Whether all is known of a batch: what could not be decoded is tried twice more first,
        the second time after a pause during which reading goes on."""
        if not batch.tried_again:
            if self._decoder.decode_again(batch.items, afresh=True):
                batch.ripe_at_s = self._clock() + self._limits.retry_pause_s
            batch.tried_again = True
        if self._clock() < batch.ripe_at_s:
            return False
        if batch.ripe_at_s > 0.0:
            self._decoder.decode_again(batch.items, afresh=False)
            batch.ripe_at_s = 0.0
        return True

    def _fold(self, batch: Batch) -> Folded:
        """Cut a batch where a partition must stop, and fold it. While the one before is written,
        so it rests on that one being committed; if it is not, the batch is read anew."""
        items_of: dict[Partition, list[Item]] = defaultdict(list)
        for item in batch.items:
            items_of[item.record.topic, item.record.partition].append(item)
        courses: dict[Partition, Course] = {}
        stops: dict[Partition, Stop] = {}
        before = {} if self._write is None else self._write.courses
        for partition, items in items_of.items():
            owned = self._owned[partition]
            course = before.get(partition, owned.course)
            courses[partition], stop = judge(course, items, recorded=owned.letters)
            if stop is not None:
                stops[partition] = stop
        batch.kept = [i for i in batch.items if not _is_behind(i, stops)] if stops else batch.items
        batch.last = {partition: items[-1].record for partition, items in items_of.items()}
        batch.courses, batch.stops = courses, stops
        batch.folded = fold(batch.kept, advances={}, views=self._views)
        batch.folded.make_rows()
        return batch.folded

    def _advances(self, batch: Batch) -> dict[Partition, Advance]:
        """How far each partition moves: behind its last record, and what was passed behind it."""
        advances = {}
        for partition, read_to in batch.ends.items():
            owned, stop = self._owned[partition], batch.stops.get(partition)
            end = stop.offset if stop else read_to
            if self._until is not None:
                end = min(end, max(self._until.get(partition, 0), owned.committed))
            if partition in self._paused or (end <= owned.committed and stop is None):
                continue
            record = batch.last.get(partition)
            advances[partition] = Advance(
                start=owned.committed,
                end=end,
                last_event_ms=None if record is None else record.timestamp_ms,
                leader_epoch=None if record is None else record.leader_epoch,
                complete_as_of=owned.complete_as_of(end),
                stopped_reason=stop.reason if stop else None,
                redriven=_redriven(owned, end) if owned.letters else (),
            )
        return advances

    def _epochs(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        return {p: self._owned[p].epoch for p in partitions if p in self._owned}

    # What becomes of a batch.

    def _settle(self) -> None:
        if self._write is None or not self._write.future.done():
            return
        done, self._write = self._write, None
        try:
            done.future.result()
        except FencedError as error:
            self._fenced(error)
        except BatchRefusedError as error:
            self._halve(error, done.items)
        except TransientError as error:
            self._start_over()
            self._suffer(error)
        else:
            self._committed(done)

    def _committed(self, done: Writing) -> None:
        folded, courses = done.folded, done.courses
        ends = {p: advance.end for p, advance in folded.advances.items() if p in self._owned}
        for partition, end in ends.items():
            owned = self._owned[partition]
            owned.committed = self._last[partition] = end
            owned.course = courses.get(partition, owned.course)
            self._courses[partition] = end, owned.course
        self._kafka.commit_async(ends)
        self._limit = min(self._limits.rows, max(self._limit * 2, 1))
        for place in list(self._condemned):
            if ends.get((place[0], place[1]), 0) > place[2]:
                del self._condemned[place]
        METRICS.batch(folded, len(done.items))
        for partition, advance in folded.advances.items():
            if advance.stopped_reason is not None and partition in self._owned:
                self._stop(partition, advance.stopped_reason)

    def _stop(self, partition: Partition, reason: str) -> None:
        """The row says that nobody goes on from here: let go, and keep the rest going."""
        epoch = self._owned[partition].epoch
        self._forget_gathered({partition})
        self._kafka.drop([partition])
        del self._owned[partition], self._courses[partition]
        METRICS.stopped.labels(partition[0]).inc()
        self._refuse(partition, Refusal(reason, epoch))
        self._status.owned = len(self._owned)

    def _fenced(self, error: FencedError) -> None:
        _log.warning("fenced", partitions=list(error.partitions))
        METRICS.fenced.inc()
        self._start_over()
        self._store.forget_build()
        self._unconfirmed = True

    def _halve(self, error: BatchRefusedError, items: Sequence[Item]) -> None:
        """The database refuses something in the batch: find the record that it is."""
        self._start_over()
        if len(items) > 1:
            self._limit = max(1, len(items) // 2)
            return
        if not items or isinstance(items[0], Dead):
            raise RefusedError(
                f"the database refuses what the worker keeps for itself: {error}. Compare its"
                " schema with the migrations (`alembic check`)."
            ) from error
        record = items[0].record
        _log.error(
            "the database refuses a record",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            error=str(error),
        )
        place = (record.topic, record.partition, record.offset)
        self._condemned[place] = Fault(Reason.REFUSED_BY_DATABASE, str(error))

    def _start_over(self) -> None:
        """Let go of every partition; each is claimed anew, where its epoch is still ours."""
        self._forget_gathered(set(self._owned))
        self._kafka.drop(self._owned)
        self._to_claim.update({p: owned.epoch for p, owned in self._owned.items()})
        self._owned.clear()
        self._to_note.clear()

    def _reread(self, partition: Partition) -> None:
        """A partition can't be read on from where it is: its row and the broker tell why."""
        owned = self._owned.pop(partition, None)
        if owned is not None:
            self._forget_gathered({partition})
            self._kafka.drop([partition])
            self._to_claim[partition] = owned.epoch

    def _forget_gathered(self, partitions: set[Partition]) -> None:
        """Drop what was read of these partitions and is not being written."""
        self._undecoded = [r for r in self._undecoded if (r.topic, r.partition) not in partitions]
        gather, batch = self._gather, self._batch
        if batch is not None:  # what was closed is open again: what was found out may be wrong now
            gather.items[:0] = batch.items
            self._batch = None
        gather.items = [
            i for i in gather.items if (i.record.topic, i.record.partition) not in partitions
        ]
        gather.size_bytes = _size_bytes(gather.items)
        for partition in partitions & self._owned.keys():
            owned = self._owned[partition]
            in_hand = self._write.folded.advances.get(partition) if self._write else None
            owned.read_to = in_hand.end if in_hand else owned.committed

    # Who owns what.

    def _on_assigned(self, partitions: Collection[Partition]) -> None:
        _log.info("assigned", partitions=sorted(partitions))
        self._told = True
        self._to_claim.update(dict.fromkeys(partitions))
        self._ready_without()

    def _ready_without(self) -> None:
        """To own nothing is an answer too: a spare worker is ready."""
        if self._told and not self._to_claim and self._outage is None:
            self._status.wait_for(None)

    def _on_revoked(self, partitions: Collection[Partition]) -> None:
        _log.info("revoked", partitions=sorted(partitions))
        # Only waited for: what has to follow from its outcome would meddle with this rebalance.
        self._await_write()
        reached(IN_REVOKE)
        self._let_go(partitions)

    def _on_lost(self, partitions: Collection[Partition]) -> None:
        _log.warning("lost", partitions=sorted(partitions))
        self._let_go(partitions)

    def _let_go(self, partitions: Collection[Partition]) -> None:
        self._forget_gathered(set(partitions))
        for partition in partitions:
            self._owned.pop(partition, None)
            self._to_claim.pop(partition, None)
            self._last.pop(partition, None)
            self._courses.pop(partition, None)
            self._to_note.pop(partition, None)
            self._paused.discard(partition)
            self._refused.pop(partition, None)
            self._status.accept(partition)
        self._status.owned = len(self._owned)
        self._ready_without()

    def _confirm(self) -> None:
        """After a fence: only a confirmed member of the group takes its partitions anew."""
        if not self._unconfirmed:
            return
        # Any offset asks the question: nobody reads group offsets back.
        member = self._kafka.confirm_member({p: self._last.get(p, 0) for p in self._to_claim})
        self._unconfirmed = False
        if member:
            self._to_claim = dict.fromkeys(self._to_claim)
        else:
            _log.warning("no longer a member", partitions=sorted(self._to_claim))
            self._to_claim.clear()

    def _claim(self) -> None:
        """Draw epochs for what was assigned, and start reading where the rows say."""
        if not self._to_claim or self._write is not None or self._note_under_way():
            return
        wanted = dict(self._to_claim)
        brokers = self._kafka.describe(wanted, BROKER_TIMEOUT_S)
        still_mine = {p: epoch for p, epoch in wanted.items() if epoch is not None}
        try:
            claims = self._store.claim(brokers, still_mine)
        except FencedError as error:
            self._fenced(error)
            return
        except TransientError:
            # The next connection may be to a standby that lacks our last commits: ask every row.
            self._start_over()
            raise
        for partition, claimed in claims.items():
            self._to_claim.pop(partition, None)
            self._start(partition, claimed)
        self._status.owned = len(self._owned)
        self._status.wait_for(None)

    def _start(self, partition: Partition, claimed: Claimed | Refusal) -> None:
        if isinstance(claimed, Refusal):
            self._refuse(partition, claimed)
            return
        start = claimed.next_offset
        self._refused.pop(partition, None)
        self._owned[partition] = Owned(
            claimed.epoch, start, start, self._course(partition, claimed), claimed.letters
        )
        self._last[partition] = start
        self._status.accept(partition)
        _log.info(
            "owned",
            topic=partition[0],
            partition=partition[1],
            offset=start,
            owner_epoch=claimed.epoch,
        )
        if claimed.paused:
            self._paused.add(partition)
        else:
            self._paused.discard(partition)
            self._kafka.start({partition: start})

    def _refuse(self, partition: Partition, refusal: Refusal) -> None:
        self._refused[partition] = refusal.epoch
        if self._status.refuse(partition, refusal.reason):
            _log.error(
                "partition refused",
                topic=partition[0],
                partition=partition[1],
                reason=refusal.reason,
            )

    def _course(self, partition: Partition, claimed: Claimed) -> Course:
        """The breaker goes on where this worker left the partition itself; else it begins anew."""
        end, left = self._courses.get(partition, (-1, Course()))
        return Course(
            dead=left.dead if end == claimed.next_offset else 0,
            leader_epoch=claimed.leader_epoch,
            loss_accepted_until=claimed.loss_accepted_until,
        )

    # Outages.

    def _suffer(self, error: TransientError) -> None:
        """Something is away: hold everything back, keep the membership, try again later."""
        tries = 1 if self._outage is None else self._outage.tries + 1
        most = min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2.0**tries)
        wait_s = most * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        if self._outage is None:
            METRICS.outages.inc()
            _log.warning("waiting", reason=str(error))
            self._kafka.pause(self._owned)
        self._outage = Outage(str(error), tries, self._clock() + wait_s)
        self._status.wait_for(str(error))

    def _wait_out(self) -> None:
        assert self._outage is not None
        self._take_during_outage(self._kafka.poll(1, IDLE_POLL_S))
        if self._clock() < self._outage.again_at_s:
            return
        before = self._outage
        try:
            self._confirm()
            self._claim()
            if self._undecoded:
                self._take(self._undecoded)
        except TransientError as error:
            self._suffer(error)
            return
        _log.info("going on", after_tries=before.tries)
        self._outage = None
        self._kafka.resume(self._owned.keys() - self._paused)
        self._status.wait_for(None)

    def _take_during_outage(self, records: list[Record]) -> None:
        """A record that was fetched before its partition was held back waits with the others."""
        self._undecoded += self._wanted(records)


def _size_bytes(items: Sequence[Item]) -> int:
    return sum(len(item.record.value or b"") + len(item.record.key or b"") for item in items)


def _is_behind(item: Item, stops: Mapping[Partition, Stop]) -> bool:
    stop = stops.get((item.record.topic, item.record.partition))
    return stop is not None and item.record.offset >= stop.offset


def _redriven(owned: Owned, end: int) -> tuple[int, ...]:
    """The offsets of a batch whose dead letters were redriven before."""
    return tuple(
        offset
        for offset, letter in owned.letters.items()
        if letter.goes_in and owned.committed <= offset < end
    )


def _wait(future: "Future[Any]", timeout_s: float) -> None:
    """Wait for a future without taking its outcome."""
    try:
        future.exception(timeout_s)
    except TimeoutError:
        return
