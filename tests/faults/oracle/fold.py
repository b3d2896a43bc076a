"""The log, folded: which event stands for each key, and what every record counted as.

Pure. Each event is classified in the offset order of its partition, as if it had come alone. For a
key whose events lie in one partition that is exact. A key that moved between partitions is judged
by its versions, which gives its row; how its events were counted depends on who arrived first, so
those counts are only bounded (`Counters.ambiguous`), and what differs between the candidates of its
row is left open (`State.rivals`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.faults.oracle.events import (
    Contract,
    Decoder,
    Event,
    FindSchema,
    Record,
    Tombstone,
)
from tests.faults.oracle.rows import Views, views_of
from tests.faults.oracle.walk import BrokenError

# topic, partition, offset
Coordinate = tuple[str, int, int]
# topic, and the key of the row
_StateKey = tuple[str, tuple[str, ...]]
# What the product recorded of a dead letter: its reason and its state.
Recorded = Mapping[Coordinate, tuple[str, str]]
# A registry may learn a schema after the record was given up: the record decodes today.
_CURABLE = frozenset({"UNKNOWN_SCHEMA", "INCOMPATIBLE_SCHEMA"})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The one dead letter that a record deserves."""

    reason: str
    detail: str


@dataclass(slots=True)
class Counters:
    """What the records of one partition counted as."""

    applied: int = 0
    superseded: int = 0
    duplicates: int = 0
    tombstones: int = 0
    dead: int = 0
    # Events whose count depends on which partition arrived first.
    ambiguous: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """One line of a key's history, for people who look for a difference."""

    topic: str
    partition: int
    offset: int
    key: tuple[str, ...]
    version: int
    status: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Removal:
    """The latest tombstone of an order within one partition."""

    offset: int
    timestamp_ms: int


@dataclass(slots=True)
class State:
    """What stands for one key: the best event of each partition it was seen in."""

    best: dict[int, Event] = field(default_factory=dict)
    # Every event, kept only to re-count a key that turns out to have moved.
    events: dict[int, int] = field(default_factory=dict)

    @property
    def rivals(self) -> list[Event]:
        """The candidates for the row: more than one only where partitions tie in version."""
        top = max(event.version for event in self.best.values())
        return [event for event in self.best.values() if event.version == top]


@dataclass(slots=True)
class Expected:
    """What the product must hold once it stands at `next_offsets`."""

    views: Views
    counters: dict[tuple[str, int], Counters]
    dead_letters: dict[Coordinate, DeadLetter]
    next_offsets: dict[tuple[str, int], int]
    history: dict[str, list[Trace]]
    # Dead letters of the product that today's registry can decode: recorded before it could.
    cured: set[Coordinate]
    crosschecked: int

    def events_of(self, order_id: str) -> list[Trace]:
        return self.history.get(order_id, [])


class Fold:
    """A fold under way: records go in one by one, and the rows of all keys or of one come out."""

    def __init__(self, contract: Contract, recorded: Recorded) -> None:
        self.contract = contract
        self.recorded = recorded
        self.states: dict[_StateKey, State] = {}
        # Under which keys an order and its payments have their states.
        self.keys: dict[str, set[_StateKey]] = {}
        self.removals: dict[str, dict[int, Removal]] = {}
        self.counters: dict[tuple[str, int], Counters] = {}
        self.dead_letters: dict[Coordinate, DeadLetter] = {}
        self.history: dict[str, list[Trace]] = {}
        self.cured: set[Coordinate] = set()
        self.redriven: list[Event] = []

    def take(self, decoder: Decoder, record: Record) -> str | None:
        """Put in the next record of its partition; the order that it is of, if it is of one."""
        counters = self.counters.setdefault((record.topic, record.partition), Counters())
        try:
            event = decoder.decode(record)
        except BrokenError as error:
            self._bury(record, error)
            counters.dead += 1
            return None
        if isinstance(event, Tombstone):
            counters.tombstones += 1
            self._remove(event)
            return event.key
        if self._was_given_up(event):
            counters.dead += 1
        else:
            self._count(counters, event)
        return event.key[0]

    def _was_given_up(self, event: Event) -> bool:
        at = _coordinate(event.record)
        reason, state = self.recorded.get(at, ("", ""))
        if reason not in _CURABLE:
            return False
        self.cured.add(at)
        if state == "redriven":
            self.redriven.append(event)
        self._trace(event, f"dead letter, {state}")
        return True

    def redrive(self, order_id: str | None = None) -> None:
        """After the log: a redriven event meets what was applied long before it."""
        for event in self.redriven:
            if order_id not in (None, event.key[0]):
                continue
            best = self._state(event).best
            there = best.get(event.record.partition)
            if there is None or there.version < event.version:
                best[event.record.partition] = event

    def _state(self, event: Event) -> State:
        key = (event.record.topic, event.key)
        self.keys.setdefault(event.key[0], set()).add(key)
        return self.states.setdefault(key, State())

    def _count(self, counters: Counters, event: Event) -> None:
        partition = event.record.partition
        state = self._state(event)
        state.events[partition] = state.events.get(partition, 0) + 1
        there = state.best.get(partition)
        if there is None or there.version < event.version:
            state.best[partition] = event
            counters.applied += 1
            self._trace(event, "applied")
        elif there.version > event.version:
            counters.superseded += 1
            self._trace(event, "superseded")
        elif there.content == event.content:
            counters.duplicates += 1
            self._trace(event, "duplicate")
        else:
            counters.dead += 1
            other = f"version {event.version} stands with other content"
            self._bury(event.record, BrokenError("VERSION_CONFLICT", other))

    def _bury(self, record: Record, error: BrokenError) -> None:
        self.dead_letters[_coordinate(record)] = DeadLetter(error.reason, str(error))
        key = "" if record.key is None else record.key[:200].decode("utf-8", "replace")
        trace = Trace(
            record.topic, record.partition, record.offset, (key,), 0, "", f"dead, {error}"[:200]
        )
        self.history.setdefault(key, []).append(trace)

    def _remove(self, tombstone: Tombstone) -> None:
        record = tombstone.record
        removal = Removal(record.offset, record.timestamp_ms)
        self.removals.setdefault(tombstone.key, {})[record.partition] = removal
        trace = Trace(
            record.topic, record.partition, record.offset, (tombstone.key,), 0, "", "tombstone"
        )
        self.history.setdefault(tombstone.key, []).append(trace)

    def _trace(self, event: Event, outcome: str) -> None:
        record = event.record
        trace = Trace(
            record.topic,
            record.partition,
            record.offset,
            event.key,
            event.version,
            event.content["status"],
            outcome,
        )
        self.history.setdefault(event.key[0], []).append(trace)

    def bound_moved_keys(self) -> None:
        for (topic, _), state in self.states.items():
            if len(state.events) > 1:
                for partition, events in state.events.items():
                    self.counters[topic, partition].ambiguous += events

    def hidden(self, event: Event) -> bool:
        """A tombstone behind the event in its partition, or not earlier in another one."""
        at = event.record
        return any(
            removal.offset > at.offset
            if partition == at.partition
            else removal.timestamp_ms >= at.timestamp_ms
            for partition, removal in self.removals.get(event.key[0], {}).items()
        )

    def views(self) -> Views:
        """Every row of every view."""
        return self._views(self.states, set(self.removals))

    def views_of(self, order_id: str) -> Views:
        """The rows of one order, and its own part of each aggregate."""
        return self._views(self.keys.get(order_id, ()), {order_id} & self.removals.keys())

    def _views(self, keys: Iterable[_StateKey], removed: set[str]) -> Views:
        orders, payments = {}, {}
        for topic, key in keys:
            if self.states[topic, key].best:
                rivals = self.states[topic, key].rivals
                if topic == self.contract.orders_topic:
                    orders[key[0]] = [(event, self.hidden(event)) for event in rivals]
                else:
                    payments[key[0], key[1]] = rivals
        return views_of(orders, payments, removed_only=removed - set(orders))


def expect(
    records: Iterable[Record],
    find_schema: FindSchema,
    *,
    next_offsets: Mapping[tuple[str, int], int] | None = None,
    recorded: Recorded | None = None,
    contract: Contract | None = None,
) -> Expected:
    """Fold `records`, which must come in offset order within each partition.

    `recorded` are the dead letters that the product holds: it decides about a record whose schema
    became known after it was given up (open and discarded stay out of the rows, redriven go in).
    """
    contract = contract or Contract()
    decoder = Decoder(find_schema, contract)
    fold = Fold(contract, recorded or {})
    ends: dict[tuple[str, int], int] = {}
    for record in records:
        if record.offset < ends.get((record.topic, record.partition), 0):
            raise ValueError(f"{_coordinate(record)} comes after a later offset of its partition")
        ends[record.topic, record.partition] = record.offset + 1
        fold.take(decoder, record)
    fold.redrive()
    fold.bound_moved_keys()
    pinned = dict(ends if next_offsets is None else next_offsets)
    for partition in pinned:
        fold.counters.setdefault(partition, Counters())
    return Expected(
        views=fold.views(),
        counters=fold.counters,
        dead_letters=fold.dead_letters,
        next_offsets=pinned,
        history=fold.history,
        cured=fold.cured,
        crosschecked=decoder.crosscheck.checked,
    )


def _coordinate(record: Record) -> Coordinate:
    return record.topic, record.partition, record.offset
