"""Plays one schedule: workers, broker and database, move by move, and then the healing after it.

A schedule is a seed for the set-up and a list of moves. The promises are checked at every commit
(`database`) and at the end: everything is applied once, what is dead is what had to die, and nobody
is left fencing or waiting.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from unittest.mock import patch

from ingest import worker as page
from ingest.claim import Observation
from ingest.errors import Fault, Reason, TransientError
from ingest.records import Dead, Event, Item, Made, Record
from ingest.status import Status
from ingest.worker import Limits, Worker
from tests.faults.simulator.broker import (
    DEAD_IN_THE_END,
    SECOND_TRY,
    THIRD_TRY,
    UNREADABLE,
    Broker,
    Consumer,
)
from tests.faults.simulator.chance import Chance, Violation
from tests.faults.simulator.database import Database, Store, Transaction, at
from views.positions import Partition, PositionVector

VIEWS: Final = {"orders": "orders", "payments": "payments"}
HEALED_WITHIN = 120
"""Rounds of about a second, in each of which every worker takes four steps."""
FENCES_AFTER_HEALING = 12

Move = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Schedule:
    """What happens: `setup` decides the start and the healing, `moves` what comes between."""

    setup: int
    moves: tuple[Move, ...]


class Decoder:
    """`ingest.ports.DecoderPort`: reads what the broker says can be read, at the right try."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def decode(self, records: Sequence[Record]) -> list[Item]:
        self._ask()
        return [self._item(record, 1) for record in records]

    def decode_again(self, items: list[Item], *, afresh: bool) -> bool:
        suspects = [
            place
            for place, item in enumerate(items)
            if isinstance(item, Dead) and item.fault.reason is Reason.MALFORMED
        ]
        if suspects:
            self._ask()
        for place in suspects:
            items[place] = self._item(items[place].record, 2 if afresh else 3)
        return any(isinstance(items[place], Dead) for place in suspects)

    def _ask(self) -> None:
        if self._world.registry_down:
            raise TransientError("the registry is away")

    def _item(self, record: Record, attempt: int) -> Item:
        kind = self._world.broker.kinds[record[:3]]
        if kind == UNREADABLE or attempt < {SECOND_TRY: 2, THIRD_TRY: 3}.get(kind, 1):
            return Dead(record, Fault(Reason.MALFORMED, "unreadable"), None, attempt)
        return Event(record, (record[:3],), 1, 1, Made([(record[:3], 1)]), 0)


@dataclass(slots=True)
class Actor:
    """One worker process."""

    name: str
    worker: Worker
    consumer: Consumer
    store: Store
    status: Status
    frozen: bool = False
    seen: dict[Partition, Observation] = field(default_factory=dict)
    held: set[Partition] = field(default_factory=set)


class World:
    """Everything there is in one schedule."""

    def __init__(self, schedule: Schedule, *, database: type[Database] = Database) -> None:
        self.chance = chance = Chance()
        chance.begin(schedule.setup)
        partitions = [("orders", n) for n in range(1 + chance.below(2))]
        partitions += [("payments", n) for n in range(1 + chance.below(2))]
        self.broker = Broker(partitions, chance)
        self.database = database(self.broker, chance)
        self.now_s = 0.0
        self.registry_down = False
        self.trimmed = False
        self.story: list[str] | None = None
        self.actors: list[Actor] = []
        self._born = 0
        self._schedule = schedule
        for partition in partitions:
            for _ in range(chance.below(6)):
                self.broker.append(partition, self.now_s)
        self._rows = 1 + chance.below(6)
        self.until = self._some_end() if chance.one_in(8) else None
        for _ in range(1 + chance.below(3)):
            self._spawn()

    def _some_end(self) -> PositionVector:
        return PositionVector(
            {p: self.chance.below(c.high + 1) for p, c in self.broker.content.items()}
        )

    def play(self) -> dict[str, int]:
        """Play the schedule and heal; answers what was met. Violation: a promise did not hold."""
        for kind, seed in self._schedule.moves:
            self.chance.begin(seed)
            if self.story is not None:
                self.story.append(f"{kind}: {self._where()}")
            MOVES[kind](self)
        self.chance.begin(self._schedule.setup + 1)
        self._heal()
        return self.database.bites

    def _where(self) -> str:
        rows = ", ".join(
            f"{t}:{p} at {row.next_offset} of {self.broker.content[t, p].high} in epoch {row.epoch}"
            for (t, p), row in self.database.live.items()
        )
        return f"{rows}; {', '.join(a.name + ('*' if a.frozen else '') for a in self.actors)}"

    # Moves.

    def _spawn(self) -> None:
        self._born += 1
        name = f"worker-{self._born}"
        consumer = Consumer(self.broker, name)
        store = Store(self.database, name, consumer)
        status = Status()
        worker = Worker(
            log=consumer,
            store=store,
            decoder=Decoder(self),
            views=VIEWS,
            clock=self._clock,
            limits=Limits(rows=self._rows, size_bytes=1_000, linger_s=0.2, retry_pause_s=0.1),
            status=status,
            until=self.until,
        )
        self.actors.append(Actor(name, worker, consumer, store, status))
        self.broker.join(consumer)

    def _clock(self) -> float:
        return self.now_s

    def _any(self, *, frozen: bool) -> Actor | None:
        found = [actor for actor in self.actors if actor.frozen is frozen]
        return found[self.chance.below(len(found))] if found else None

    def step(self) -> None:
        """One worker does up to four turns."""
        actor = self._any(frozen=False)
        if actor is not None:
            for _ in range(1 + self.chance.below(4)):
                self.now_s += 0.06
                self._turn(actor)

    def _turn(self, actor: Actor) -> None:
        if actor not in self.actors:
            return
        if actor.worker.finished() and self._reached():
            self._stop(actor)
        else:
            actor.worker.step()

    def _reached(self) -> bool:
        """What `ingest.service` asks the rows, too: others' partitions count."""
        assert self.until is not None
        stands = PositionVector({p: row.next_offset for p, row in self.database.live.items()})
        return stands.includes(self.until)

    def advance(self) -> None:
        """A transaction goes on."""
        if self.database.open:
            self.database.advance(self.database.open[self.chance.below(len(self.database.open))])

    def produce(self) -> None:
        """Records come in."""
        partitions = list(self.broker.content)
        for _ in range(1 + self.chance.below(4)):
            self.now_s += 0.001
            self.broker.append(partitions[self.chance.below(len(partitions))], self.now_s)

    def watch(self) -> None:
        """A worker is told what its watch saw, which may have been a while ago."""
        actor = self._any(frozen=False)
        if actor is not None:
            if self.chance.below(3) == 0:
                self._look(actor)
            actor.worker.observe(actor.seen)
            actor.worker.hold(actor.held)
            self._look(actor)

    def _look(self, actor: Actor) -> None:
        seen_at = at(self.now_s)
        actor.seen = {
            p: Observation(self.broker.content[p].high, seen_at) for p in actor.worker.positions()
        }
        if not self.database.down:
            rows = self.database.live.items()
            actor.held = {p for p, row in rows if row.paused or row.stopped}

    def rebalance(self) -> None:
        """The coordinator deals anew."""
        self.broker.rebalance()

    def expel(self) -> None:
        """A worker's session ends, frozen or not."""
        if self.actors:
            actor = self.actors[self.chance.below(len(self.actors))]
            self.database.bit("expelled")
            self.broker.expel(actor.consumer)

    def freeze(self) -> None:
        """A worker is stopped by a signal, whatever it was doing."""
        actor = self._any(frozen=False)
        if actor is not None:
            actor.frozen = True
            held = any(t.store is actor.store for t in self.database.open)
            self.database.bit("frozen in a transaction" if held else "frozen")
            if self.chance.below(3):
                self.broker.expel(actor.consumer)

    def wake(self) -> None:
        """It goes on as if nothing had been."""
        actor = self._any(frozen=True)
        if actor is not None:
            actor.frozen = False
            self.database.bit("woken")

    def kill(self) -> None:
        """A worker's process is gone; the group learns of it at once or later."""
        if self.actors:
            self._gone(self.actors[self.chance.below(len(self.actors))])

    def _gone(self, actor: Actor) -> None:
        self.actors.remove(actor)
        self.database.bit("killed")
        self.database.kill(actor.store)
        self.broker.expel(actor.consumer)

    def spawn(self) -> None:
        """A worker comes, or one that was there stops in order."""
        if len(self.actors) < 4:
            self._spawn()
        else:
            actor = self._any(frozen=False)
            if actor is not None:
                self._stop(actor)

    def _stop(self, actor: Actor) -> None:
        actor.worker.finish()
        actor.consumer.close()
        self.actors.remove(actor)
        self.database.kill(actor.store)

    def log_outage(self) -> None:
        """The broker goes away or comes back."""
        self.broker.down = not self.broker.down

    def database_outage(self) -> None:
        """The database goes away or comes back."""
        self.database.down = not self.database.down

    def registry_outage(self) -> None:
        """The registry goes away or comes back."""
        self.registry_down = not self.registry_down

    def ghost(self) -> None:
        """A commit that its client gave up reaches its end."""
        if self.database.ghosts:
            self.database.end_ghost(self.database.ghosts[0])

    def pause(self) -> None:
        """An operator pauses a partition, or lets it go on."""
        rows = list(self.database.live.values())
        row = rows[self.chance.below(len(rows))]
        row.paused = not row.paused

    def must_stop(self) -> None:
        """A consumer can't read on from where it is, or the topic's id is in doubt."""
        actor = self._any(frozen=False)
        if actor is not None:
            for partition in list(actor.worker.positions())[:1]:
                if self.chance.one_in(2):
                    actor.consumer.must_stop(partition)
                else:
                    actor.worker.doubt([partition])

    def burst(self) -> None:
        """A producer gone bad: more dead records than a partition may have in a row."""
        partitions = list(self.broker.content)
        partition = partitions[self.chance.below(len(partitions))]
        self.now_s += 0.001
        for _ in range(20 + self.chance.below(4)):
            self.broker.append(partition, self.now_s, kind=UNREADABLE)

    def fail_over(self) -> None:
        """A standby is promoted that lacks the last commits."""
        if self.database.fail_over():
            for actor in self.actors:
                actor.store.broken = True

    def tick(self) -> None:
        """Time passes."""
        self.now_s += 0.2 * (1 + self.chance.below(20))

    def swap(self) -> None:
        """A rebuilt build becomes the live one."""
        if not self.database.down:
            self.database.swap()

    def trim(self) -> None:
        """Retention passes a position, now and then."""
        partitions = list(self.broker.content)
        partition = partitions[self.chance.below(len(partitions))]
        if self.chance.one_in(4):
            self.broker.content[partition].low = self.broker.content[partition].high
            self.trimmed = True

    # Healing.

    def _heal(self) -> None:
        self.broker.down = self.database.down = self.registry_down = False
        self.database.calm = True
        for actor in [a for a in self.actors if a.frozen]:
            self._end_of_frost(actor)
        while self.database.ghosts:
            self.database.end_ghost(self.database.ghosts[0])
        fences = self.database.fences
        for _ in range(HEALED_WITHIN):
            self._round()
            if self._whole():
                break
        else:
            raise Violation(f"not whole after {HEALED_WITHIN} rounds: {self._where()}")
        if self.database.fences - fences > FENCES_AFTER_HEALING:
            raise Violation(f"{self.database.fences - fences} fences after everything was healed")
        self.database.check_all()
        self._check_dead()

    def _end_of_frost(self, actor: Actor) -> None:
        """A frozen worker wakes, dies, or stays as it is: the others must not need it."""
        fate = self.chance.below(3)
        if fate == 0:
            actor.frozen = False
        elif fate == 1:
            self._gone(actor)
        else:
            self.broker.expel(actor.consumer)

    def _round(self) -> None:
        if all(actor.frozen for actor in self.actors):
            self._spawn()
        self.now_s += 1.0
        self._operate()
        for actor in [a for a in self.actors if not a.frozen]:
            self._look(actor)
            actor.worker.observe(actor.seen)
            actor.worker.hold(actor.held)
            for _ in range(4):
                self.now_s += 0.06
                self._turn(actor)
                for transaction in [t for t in self.database.open if not self._is_frozen(t)]:
                    self.database.advance(transaction)

    def _operate(self) -> None:
        """An operator lets paused partitions go on, and accepts the loss where one was stopped."""
        for partition, row in self.database.live.items():
            row.paused = False
            if row.stopped:
                row.stopped, row.loss_accepted_until = None, self.broker.content[partition].high

    def _is_frozen(self, transaction: Transaction) -> bool:
        """Whether nobody is there to send what comes next."""
        return any(actor.frozen and actor.store is transaction.store for actor in self.actors)

    def _whole(self) -> bool:
        return all(
            row.next_offset == self._goal(partition) or self._refused(partition)
            for partition, row in self.database.live.items()
        )

    def _goal(self, partition: Partition) -> int:
        high = self.broker.content[partition].high
        return high if self.until is None else min(high, self.until.next_offsets[partition])

    def _refused(self, partition: Partition) -> bool:
        """Whether a partition stands still because the log no longer has what comes next."""
        gone = self.database.live[partition].next_offset < self.broker.content[partition].low
        return gone and any(partition in actor.status.refused for actor in self.actors)

    def _check_dead(self) -> None:
        for partition, row in self.database.live.items():
            expected = {
                offset
                for offset in row.applied
                if self.broker.kinds[(*partition, offset)] in DEAD_IN_THE_END
            }
            if row.dead != expected:
                raise Violation(f"{partition}: {row.dead} are dead, {expected} had to die")


MOVES: Final[dict[str, Callable[[World], None]]] = {
    "step": World.step,
    "advance": World.advance,
    "produce": World.produce,
    "watch": World.watch,
    "rebalance": World.rebalance,
    "expel": World.expel,
    "freeze": World.freeze,
    "wake": World.wake,
    "kill": World.kill,
    "spawn": World.spawn,
    "log outage": World.log_outage,
    "database outage": World.database_outage,
    "registry outage": World.registry_outage,
    "ghost": World.ghost,
    "pause": World.pause,
    "must stop": World.must_stop,
    "tick": World.tick,
    "burst": World.burst,
    "fail over": World.fail_over,
    "swap": World.swap,
    "trim": World.trim,
}


class _Silent:
    """Takes every call and keeps nothing: logging and metrics are not what is tested here."""

    def __getattr__(self, _name: str) -> Any:
        return self

    def __call__(self, *_args: object, **_named: object) -> "_Silent":
        return self


class _Told:
    """What the worker logs becomes part of the story."""

    def __init__(self, story: list[str]) -> None:
        self._story = story

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return self._tell

    def _tell(self, event: str, **named: object) -> None:
        self._story.append("    " + " ".join([event, *(f"{k}={v}" for k, v in named.items())]))


class _Even:
    """Back-off without chance: a schedule decides everything."""

    @staticmethod
    def uniform(low: float, high: float) -> float:
        return (low + high) / 2


@contextmanager
def quiet(story: list[str] | None = None) -> Iterator[None]:
    """While inside, the page logs to the story if at all, and neither measures nor draws lots."""
    with (
        patch.object(page, "_log", _Silent() if story is None else _Told(story)),
        patch.object(page, "METRICS", _Silent()),
        patch.object(page, "random", _Even()),
    ):
        yield
