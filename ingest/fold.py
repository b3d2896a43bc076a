"""Pure: a batch collapsed to one change per key, and what each of its records counts as.

Each event is classified in the order read as if it had come alone, against the row as the events
before it left it: lower version, superseded; equal version and content, duplicate; equal version
and other content, a conflict, the first one stays; higher, applied. So rows, counters and dead
letters are the same wherever a batch is cut.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ingest.errors import Fault, Reason
from ingest.records import Dead, Event, Item, Key, Record, Removal, Row
from views.positions import Partition

COUNTERS = ("applied", "superseded", "duplicates", "tombstones", "dead")
_APPLIED, _SUPERSEDED, _DUPLICATE, _TOMBSTONE, _DEAD = range(len(COUNTERS))


class Stored(NamedTuple):
    """A row as the database holds it: its version, and its event columns in staged form."""

    version: int
    row: Row


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a batch moves one partition: from the offset it was left at to the next to read.

    `stopped_reason` says why nobody may go on from there. `redriven` are offsets within whose
    records are dead letters that were redriven before (a log that is read again).
    """

    start: int
    end: int
    last_event_ms: int | None = None
    leader_epoch: int | None = None
    complete_as_of: Any = None
    stopped_reason: str | None = None
    redriven: tuple[int, ...] = ()


class Winner(NamedTuple):
    """The event that a row becomes, the row, and the lowest version of its key in the batch."""

    event: Event
    row: Row
    lowest_version: int


@dataclass(slots=True)
class Changes:
    """The events of one view in a batch, by key, in the order read.

    The versions of a key rise from event to event unless it is one of `irregular`.
    """

    events: dict[Key, list[Event]] = field(default_factory=dict)
    irregular: set[Key] = field(default_factory=set)
    _rows: list[Winner] | None = None

    def lowest_version(self, key: Key) -> int:
        """The lowest version among the events of a key."""
        events = self.events[key]
        if key not in self.irregular:
            return events[0].version
        return min(event.version for event in events)

    def winner(self, key: Key) -> Event:
        """The event that the row becomes: the first of the highest version."""
        events = self.events[key]
        if key not in self.irregular:
            return events[-1]
        return max(events, key=lambda event: event.version)  # max keeps the first of equals

    def winners(self) -> list[Winner]:
        """The winner of each key with its row. Rows that were read together are made together."""
        if self._rows is None:
            together: dict[int, list[tuple[Event, int]]] = defaultdict(list)
            for key in self.events:
                event = self.winner(key)
                together[id(event.rows)].append((event, self.lowest_version(key)))
            self._rows = []
            for found in together.values():
                rows = found[0][0].rows.take([event.place for event, _lowest in found])
                self._rows += [
                    Winner(event, row, lowest)
                    for (event, lowest), row in zip(found, rows, strict=True)
                ]
        return self._rows


@dataclass(slots=True)
class Folded:
    """A batch, ready to be written: changes per view, removals, dead letters, counters."""

    advances: dict[Partition, Advance]
    changes: dict[str, Changes]
    removals: dict[tuple[str, str, int], Record]
    dead: list[Dead]
    counters: dict[Partition, list[int]]

    @property
    def moves_rows(self) -> bool:
        """Whether anything but positions is to be written."""
        return bool(self.dead or self.rows)

    @property
    def rows(self) -> int:
        """How many rows of views and tombstones are written at most."""
        return sum(len(c.events) for c in self.changes.values()) + len(self.removals)

    def make_rows(self) -> None:
        """Make the rows of the winners now, and not when they are written."""
        for changes in self.changes.values():
            changes.winners()


def fold(
    items: Iterable[Item],
    *,
    advances: Mapping[Partition, Advance],
    views: Mapping[str, str],
) -> Folded:
    """Collapse decoded items, in the order read.

    `views` gives, per topic, the view's name. Counters assume that each key's row is older than the
    batch; `reclassify` corrects them for the few that are not, once the rows are locked.
    """
    folded = Folded(
        advances=dict(advances),
        changes={name: Changes() for name in views.values()},
        removals={},
        dead=[],
        counters=defaultdict(_nothing, {partition: _nothing() for partition in advances}),
    )
    of_topic = {topic: folded.changes[name] for topic, name in views.items()}
    for item in items:
        record = item.record
        counts = folded.counters[record.topic, record.partition]
        if isinstance(item, Event):
            changes, key = of_topic[record.topic], item.key
            known = changes.events.get(key)
            if known is None:
                changes.events[key] = [item]
            else:
                if item.version <= known[-1].version:
                    changes.irregular.add(key)
                known.append(item)
            counts[_APPLIED] += 1
        elif isinstance(item, Removal):
            _remove(folded.removals, item)
            counts[_TOMBSTONE] += 1
        else:
            folded.dead.append(item)
            counts[_DEAD] += 1
    for changes in folded.changes.values():
        for key in changes.irregular:
            _recount(folded, changes, key, None, before=[_APPLIED] * len(changes.events[key]))
    return folded


def _nothing() -> list[int]:
    return [0] * len(COUNTERS)


def _remove(removals: dict[tuple[str, str, int], Record], item: Removal) -> None:
    """Keep the last tombstone of a key in each partition."""
    name = (item.record.topic, item.key, item.record.partition)
    known = removals.get(name)
    if known is None or known.offset < item.record.offset:
        removals[name] = item.record


def reclassify(folded: Folded, stored: Mapping[str, Mapping[Key, Stored]]) -> bool:
    """Count anew the keys whose row was not older than the batch; True where anything changed.

    `stored` holds those rows per view. Conflicts found here are added to the dead letters.
    """
    changed = False
    for view, rows in stored.items():
        changes = folded.changes[view]
        for key, row in rows.items():
            events = changes.events[key]
            before = [outcome for outcome, _fault in _outcomes(events, None)]
            _forget_conflicts(folded, events)
            changed |= _recount(folded, changes, key, row, before=before)
    return changed


def _forget_conflicts(folded: Folded, events: Sequence[Event]) -> None:
    places = {(e.record.topic, e.record.partition, e.record.offset) for e in events}
    folded.dead[:] = [
        dead
        for dead in folded.dead
        if (dead.record.topic, dead.record.partition, dead.record.offset) not in places
    ]


def _recount(
    folded: Folded, changes: Changes, key: Key, row: Stored | None, *, before: Sequence[int]
) -> bool:
    events = changes.events[key]
    changed = False
    for event, was, (outcome, fault) in zip(events, before, _outcomes(events, row), strict=True):
        counts = folded.counters[event.record.topic, event.record.partition]
        counts[was] -= 1
        counts[outcome] += 1
        changed |= was != outcome
        if fault is not None:
            folded.dead.append(Dead(event.record, fault, event.schema_id, 1))
    return changed


def _outcomes(events: Sequence[Event], row: Stored | None) -> list[tuple[int, Fault | None]]:
    """What each event of one key counts as, in the order read, on top of the stored row."""
    latest: Stored | Event | None = row
    version = 0 if row is None else row.version
    outcomes: list[tuple[int, Fault | None]] = []
    for event in events:
        if event.version > version:
            version, latest = event.version, event
            outcomes.append((_APPLIED, None))
        elif event.version < version:
            outcomes.append((_SUPERSEDED, None))
        elif latest is not None and event.row == latest.row:
            outcomes.append((_DUPLICATE, None))
        else:
            outcomes.append((_DEAD, _conflict(event)))
    return outcomes


def _conflict(event: Event) -> Fault:
    key = ", ".join(str(part)[:80] for part in event.key)
    return Fault(
        Reason.VERSION_CONFLICT,
        f"version {event.version} of {key} came before with other content; that one stays",
    )
