"""A fake PostgreSQL: position rows, locks of open transactions, commits that end in every way.

What a commit applies is compared with the log at once: the offsets of a batch must be exactly those
between the position it found and the one it leaves. Flags of `Database` switch a protection off, so
that a test can see the simulator find it missing.
"""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from ingest.claim import BrokerView, Claimed, Observation, Refusal, refusal
from ingest.errors import BatchRefusedError, FencedError, TransientError
from ingest.fold import Advance, Folded
from tests.faults.simulator.broker import POISON, Broker, Consumer
from tests.faults.simulator.chance import Chance, Violation
from views.positions import Partition

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
SENT, LOCKED, OVER = range(3)
LOCK_TIMEOUT = 32
"""How often a transaction finds a row held, until the server's `lock_timeout` ends its wait."""
_ENDINGS = 12


def at(seconds: float) -> datetime:
    """The database's time."""
    return EPOCH + timedelta(seconds=seconds)


@dataclass(slots=True)
class Row:
    """A row of `positions`, with what a reader would find applied under it."""

    next_offset: int = 0
    epoch: int = 0
    paused: bool = False
    stopped: str | None = None
    loss_accepted_until: int = 0
    fresh_s: float = -1.0
    applied: list[int] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)
    writers: dict[int, str] = field(default_factory=dict)
    holder: "Transaction | None" = None

    def copy(self) -> "Row":
        """The row of a build, or of a server, that holds the same events."""
        return Row(
            next_offset=self.next_offset,
            epoch=self.epoch,
            paused=self.paused,
            stopped=self.stopped,
            loss_accepted_until=self.loss_accepted_until,
            fresh_s=self.fresh_s,
            applied=list(self.applied),
            dead=set(self.dead),
        )


class Transaction(Future[None]):
    """A batch under way. Its outcome is the schedule's; waiting for it lets the schedule move."""

    def __init__(self, store: "Store", folded: Folded, epochs: Mapping[Partition, int]) -> None:
        self.store = store
        self.build = -1
        self.folded = folded
        self.epochs = dict(epochs)
        self.state = SENT
        self.settled = False
        self.waited = 0
        self.error: BaseException | None = None

    def done(self) -> bool:
        return self.settled

    def result(self, timeout: float | None = None) -> None:
        assert self.settled
        if self.error is not None:
            raise self.error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.settled:
            self.store.database.wait(self, timeout or 0.0)
        if not self.settled:
            raise TimeoutError
        return self.error


class Noted(Future[None]):
    """An observation that was noted, or not."""

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> None:
        if self._error is not None:
            raise self._error


class Database:
    """Builds of position rows, and the transactions that are open on them."""

    fenced = True
    """The fence asks for epoch and offset."""
    together = True
    """Rows and position are committed together."""
    retries = False
    """After a commit of unknown outcome the batch is sent once more, whatever the position says."""

    asks_for_live = True
    """A claim makes sure that its session's build is still the live one."""

    def __init__(self, broker: Broker, chance: Chance) -> None:
        self.broker = broker
        self.chance = chance
        self.builds = [{partition: Row() for partition in broker.content}]
        self.down = False
        self.calm = False
        self.open: list[Transaction] = []
        self.ghosts: list[Transaction] = []
        self.fences = 0
        self._standby: list[dict[Partition, Row]] | None = None
        self.bites: dict[str, int] = {}

    @property
    def live(self) -> dict[Partition, Row]:
        """The rows of the live build."""
        return self.builds[-1]

    def bit(self, what: str) -> None:
        """Evidence: this was met by a schedule."""
        self.bites[what] = self.bites.get(what, 0) + 1

    # What a transaction does next.

    def wait(self, transaction: Transaction, timeout_s: float) -> None:
        """A worker waits: as much happens as the time allows, sometimes nothing."""
        turns = 2 if timeout_s < 1 else 8
        for _ in range(self.chance.below(turns + 1)):
            if not transaction.settled:
                self.advance(transaction)

    def advance(self, transaction: Transaction) -> None:
        """The next thing that happens to a transaction."""
        if transaction.state == SENT:
            self._lock(transaction)
        elif transaction.state == LOCKED:
            self._commit(transaction)

    def _lock(self, transaction: Transaction) -> None:
        moves = transaction.folded.advances
        if transaction.store.is_gone():
            self._fail(transaction, "failed clean")
            return
        transaction.build = transaction.store.build
        rows = self.builds[transaction.build]
        if any(rows[p].holder is not None for p in moves):
            transaction.waited += 1
            if transaction.waited == LOCK_TIMEOUT:
                self._fail(transaction, "lock timeout")
            return
        lost = tuple(p for p in moves if not self._passes(transaction, rows[p], p))
        if lost:
            self.fences += 1
            transaction.store.consumer.fenced = True
            self._end(transaction, FencedError(lost))
            return
        if self._poisoned(transaction.folded):
            self.bit("refused batch")
            self._end(transaction, BatchRefusedError("refused"))
            return
        for partition in moves:
            rows[partition].holder = transaction
        transaction.state = LOCKED
        if not self.together:
            for partition, advance in moves.items():
                rows[partition].next_offset = advance.end

    def _passes(self, transaction: Transaction, row: Row, partition: Partition) -> bool:
        if not self.fenced:
            return True
        advance = transaction.folded.advances[partition]
        return row.next_offset == advance.start and row.epoch == transaction.epochs[partition]

    def _poisoned(self, folded: Folded) -> bool:
        return any(
            self.broker.kinds[event.record[:3]] == POISON
            for changes in folded.changes.values()
            for events in changes.events.values()
            for event in events
        )

    def is_unlucky(self) -> bool:
        return not self.calm and self.chance.one_in(_ENDINGS)

    def _commit(self, transaction: Transaction) -> None:
        ending = _ENDINGS if self.calm else self.chance.below(_ENDINGS)
        if ending == 0 or (self.down and ending < 6):
            self._fail(transaction, "commit not applied, outcome unknown")
        elif ending == 1 or (self.down and ending < 9):
            self._apply(transaction)
            self._fail(transaction, "commit applied, outcome unknown")
        elif ending == 2 or self.down:
            self.bit("commit late")
            self.ghosts.append(transaction)
            self.open.remove(transaction)
            transaction.error, transaction.settled = TransientError("gone in COMMIT"), True
        else:
            self._apply(transaction)
            self._end(transaction, None)

    def end_ghost(self, ghost: Transaction) -> None:
        """A commit that nobody waits for any more reaches the server, or never does."""
        self.ghosts.remove(ghost)
        if self.chance.one_in(2):
            self.bit("late commit landed")
            self._apply(ghost)
        self._release(ghost)

    def kill(self, store: "Store") -> None:
        """A client is gone: what it had open is rolled back, unless COMMIT was on its way."""
        for transaction in [t for t in self.open if t.store is store]:
            if transaction.state == LOCKED and self.chance.one_in(2):
                self._apply(transaction)
            self._fail(transaction, "client killed")

    def _fail(self, transaction: Transaction, how: str) -> None:
        self.bit(how)
        if self.retries and how.startswith("commit"):
            self._apply(transaction)
            self._end(transaction, None)
        else:
            self._end(transaction, TransientError(how))

    def _end(self, transaction: Transaction, error: BaseException | None) -> None:
        self.open.remove(transaction)
        transaction.error, transaction.settled = error, True
        if isinstance(error, TransientError):
            transaction.store.session = None
        self._release(transaction)

    def _release(self, transaction: Transaction) -> None:
        held, transaction.state = transaction.state == LOCKED, OVER
        if held:
            rows = self.builds[transaction.build]
            for partition in transaction.folded.advances:
                rows[partition].holder = None

    # What a commit leaves behind, against the log.

    def _apply(self, transaction: Transaction) -> None:
        applied, dead = _offsets(transaction.folded)
        for partition, advance in transaction.folded.advances.items():
            row = self.builds[transaction.build][partition]
            row.applied += sorted(applied.get(partition, []))
            row.dead |= dead.get(partition, set())
            row.next_offset = advance.end
            row.stopped = advance.stopped_reason or row.stopped
            self._check(partition, row)
            self._check_counters(transaction.folded, partition, advance)
            self._check_freshness(partition, row, advance)
            epoch = transaction.epochs[partition]
            writer = row.writers.setdefault(epoch, transaction.store.name)
            if writer != transaction.store.name:
                raise Violation(f"two writers in epoch {epoch} of {partition}")

    def _check(self, partition: Partition, row: Row) -> None:
        expected = self.broker.content[partition].below(row.next_offset)
        if row.applied != expected:
            raise Violation(
                f"{partition} is at {row.next_offset}: {row.applied} were applied,"
                f" the log holds {expected} below it"
            )
        if row.next_offset > self.broker.content[partition].high:
            raise Violation(f"{partition} is at {row.next_offset}, behind the end of the log")

    def _check_counters(self, folded: Folded, partition: Partition, advance: Advance) -> None:
        content = self.broker.content[partition]
        events = len(content.below(advance.end)) - len(content.below(advance.start))
        if sum(folded.counters[partition]) != events:
            raise Violation(f"{partition}: {folded.counters[partition]} counts {events} events")

    def _check_freshness(self, partition: Partition, row: Row, advance: Advance) -> None:
        if advance.complete_as_of is not None:
            fresh_s = (advance.complete_as_of - EPOCH).total_seconds()
            row.fresh_s = max(row.fresh_s, fresh_s)
            self.check_fresh(partition, row)

    def check_fresh(self, partition: Partition, row: Row) -> None:
        """Everything acknowledged by the time that the row names must be in."""
        content = self.broker.content[partition]
        if content.seen_by(row.fresh_s) > len(row.applied):
            raise Violation(f"{partition} calls itself complete as of {row.fresh_s}, and is not")

    def check_all(self) -> None:
        """Every row of the live build against the log."""
        for partition, row in self.live.items():
            if row.holder is None:
                self._check(partition, row)

    # What others do to the rows.

    def free(self, row: Row) -> None:
        """Whoever holds a row ends: a commit lands or not, a frozen client's backend is ended."""
        holder = row.holder
        if holder is None:
            return
        self.bit("waited for a holder")
        if holder in self.ghosts:
            self.end_ghost(holder)
        elif self.chance.one_in(2):
            self._fail(holder, "backend ended by a taker-over")
        else:
            self._commit(holder)
            if holder in self.ghosts:
                self.end_ghost(holder)

    def swap(self) -> None:
        """Another build becomes the live one; the old one's writers are fenced by its epochs."""
        for row in self.live.values():
            self.free(row)
        new = {partition: row.copy() for partition, row in self.live.items()}
        for row in new.values():
            row.epoch = 0
        for row in self.live.values():
            row.epoch += 1
        self.builds.append(new)
        self.bit("swap")

    def fail_over(self) -> bool:
        """A standby falls behind; the next time it is promoted and what it lacks is lost.

        True where it was promoted: every connection is broken then.
        """
        if self._standby is None:
            self._standby = [{p: row.copy() for p, row in b.items()} for b in self.builds]
            return False
        self.bit("fail-over")
        for transaction in list(self.open):
            self._fail(transaction, "server gone")
        self.ghosts.clear()
        if len(self._standby) < len(self.builds):
            self.bit("swap lost")
        self.builds, self._standby = self._standby, None
        return True


class Store:
    """`ingest.ports.StorePort`: one worker's session."""

    def __init__(self, database: Database, name: str, consumer: Consumer) -> None:
        self.database = database
        self.name = name
        self.session: int | None = None
        self.broken = False
        self.consumer = consumer

    @property
    def build(self) -> int:
        """The build that was live when the session opened."""
        if self.session is None:
            self.session = len(self.database.builds) - 1
        return self.session

    def is_gone(self) -> bool:
        """Whether the server can't be reached, or not over this connection; it is opened anew."""
        database = self.database
        gone = database.down or database.is_unlucky() or (self.broken and self.session is not None)
        if gone:
            self.session = None
        self.broken = False
        return gone

    def claim(
        self, brokers: Mapping[Partition, BrokerView], still_mine: Mapping[Partition, int]
    ) -> dict[Partition, Claimed | Refusal]:
        database = self.database
        if self.is_gone():
            raise TransientError("claim failed")
        rows = database.builds[self.build]
        for partition in brokers:
            database.free(rows[partition])
        if rows is not database.live and database.asks_for_live:
            raise self._fence(tuple(brokers))
        lost = tuple(p for p in brokers if p in still_mine and rows[p].epoch != still_mine[p])
        if lost:
            raise self._fence(lost)
        taken = {p: self._taken(p, rows[p], broker) for p, broker in brokers.items()}
        if database.is_unlucky():
            database.bit("claimed, answer lost")
            self.session = None
            raise TransientError("the answer of a claim was lost")
        return taken

    def _fence(self, lost: tuple[Partition, ...]) -> FencedError:
        self.database.fences += 1
        self.consumer.fenced = True
        return FencedError(lost)

    def _taken(self, partition: Partition, row: Row, broker: BrokerView) -> Claimed | Refusal:
        if self.consumer.fenced and self.consumer.expelled:
            raise Violation(f"{self.name} was fenced, is no member, and takes {partition} anew")
        known = {"next_offset": row.next_offset, "cluster_id": "c", "topic_id": partition[0]}
        reason = row.stopped or refusal(partition, known, broker)
        if reason is not None:
            self.database.bit("stopped partition" if row.stopped else "refused partition")
            return Refusal(reason, row.epoch)
        row.epoch += 1
        return Claimed(
            epoch=row.epoch,
            next_offset=row.next_offset,
            paused=row.paused,
            loss_accepted_until=row.loss_accepted_until,
        )

    def write(
        self,
        folded: Folded,
        epochs: Mapping[Partition, int],
        ends: Mapping[Partition, Observation],
    ) -> Future[None]:
        transaction = Transaction(self, folded, epochs)
        self.database.open.append(transaction)
        return transaction

    def observe(
        self, ends: Mapping[Partition, Observation], epochs: Mapping[Partition, int]
    ) -> Future[None]:
        database = self.database
        if self.is_gone():
            return Noted(TransientError("observe failed"))
        rows = database.builds[self.build]
        for partition, seen in ends.items():
            row = rows[partition]
            mine = partition in epochs and row.epoch == epochs[partition]
            if mine and row.holder is None and row.next_offset >= seen.high:
                row.fresh_s = max(row.fresh_s, (seen.at - EPOCH).total_seconds())
                database.check_fresh(partition, row)
        return Noted(None)

    def forget_build(self) -> None:
        self.session = None


def _offsets(folded: Folded) -> tuple[dict[Partition, list[int]], dict[Partition, set[int]]]:
    applied: dict[Partition, list[int]] = {}
    dead: dict[Partition, set[int]] = {}
    for changes in folded.changes.values():
        for events in changes.events.values():
            for event in events:
                topic, number, offset = event.record[:3]
                applied.setdefault((topic, number), []).append(offset)
    for item in folded.dead:
        topic, number, offset = item.record[:3]
        applied.setdefault((topic, number), []).append(offset)
        dead.setdefault((topic, number), set()).add(offset)
    return applied, dead
