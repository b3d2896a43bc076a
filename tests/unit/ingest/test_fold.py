"""The fold against a model that takes one event at a time: a cut of the log changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import Fault, Reason
from ingest.fold import COUNTERS, Advance, Folded, Stored, fold, reclassify
from ingest.records import Dead, Event, Item, Key, Made, Record, Removal

VIEWS = {"orders": "orders", "payments": "payments"}
Place = tuple[str, int, int]


def _record(topic: str, partition: int, offset: int) -> Record:
    return Record(topic, partition, offset, b"k", b"v", (), 1_000 + offset, 0)


def _event(record: Record, key: Key, version: int, content: str, *, schema_id: int = 1) -> Event:
    return Event(record, key, version, schema_id, Made([(*key, version, content)]), 0)


def _place(record: Record) -> Place:
    return record.topic, record.partition, record.offset


@dataclass
class Model:
    """One event at a time: the sentence of the design, written down."""

    rows: dict[tuple[str, Key], Event] = field(default_factory=dict)
    counters: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    dead: dict[Place, Reason] = field(default_factory=dict)
    removals: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def take(self, item: Item) -> None:
        record = item.record
        counts = self.counters.setdefault(
            (record.topic, record.partition), dict.fromkeys(COUNTERS, 0)
        )
        counts[self._outcome(item)] += 1

    def _outcome(self, item: Item) -> str:
        record = item.record
        if isinstance(item, Dead):
            self.dead[_place(record)] = item.fault.reason
            return "dead"
        if isinstance(item, Removal):
            self.removals[record.topic, item.key, record.partition] = record.offset
            return "tombstones"
        view = VIEWS[record.topic]
        row = self.rows.get((view, item.key))
        if row is None or item.version > row.version:
            self.rows[view, item.key] = item
            return "applied"
        if item.version < row.version:
            return "superseded"
        if item.row == row.row:
            return "duplicates"
        self.dead[_place(record)] = Reason.VERSION_CONFLICT
        return "dead"


@dataclass
class Database:
    """What `write` does with a fold, on dictionaries."""

    rows: dict[tuple[str, Key], Event] = field(default_factory=dict)
    counters: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    dead: dict[Place, Reason] = field(default_factory=dict)
    removals: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def write(self, folded: Folded) -> None:
        reclassify(folded, {view: self._not_older(folded, view) for view in folded.changes})
        for view, changes in folded.changes.items():
            for key in changes.events:
                row, new = self.rows.get((view, key)), changes.winner(key)
                if row is None or row.version < new.version:
                    self.rows[view, key] = new
        for partition, counts in folded.counters.items():
            known = self.counters.setdefault(partition, dict.fromkeys(COUNTERS, 0))
            for name, count in zip(COUNTERS, counts, strict=True):
                known[name] += count
        for item in folded.dead:
            assert _place(item.record) not in self.dead, "recorded twice"
            self.dead[_place(item.record)] = item.fault.reason
        for place, record in folded.removals.items():
            self.removals[place] = record.offset

    def _not_older(self, folded: Folded, view: str) -> dict[Key, Stored]:
        changes = folded.changes[view]
        return {
            key: Stored(row.version, row.row)
            for key in changes.events
            if (row := self.rows.get((view, key))) is not None
            and row.version >= changes.lowest_version(key)
        }


_DRAWN = st.tuples(
    st.sampled_from(sorted(VIEWS)),
    st.integers(0, 1),  # partition
    st.integers(1, 3),  # step of the offset
    st.sampled_from(["event"] * 6 + ["dead", "removal"]),
    st.sampled_from(["o0", "o1", "o2"]),
    st.sampled_from(["p0", "p1"]),
    st.integers(1, 4),  # version
    st.sampled_from("ab"),  # content
)


def _log(drawn: Sequence[tuple[str, int, int, str, str, str, int, str]]) -> list[Item]:
    """A few keys, versions and contents in two partitions of each topic, with all that happens."""
    offsets: dict[tuple[str, int], int] = {}
    items: list[Item] = []
    for topic, partition, step, kind, order, payment, version, content in drawn:
        offset = offsets[topic, partition] = offsets.get((topic, partition), -1) + step
        record = _record(topic, partition, offset)
        key: Key = (order,) if topic == "orders" else (order, payment)
        if kind == "dead":
            items.append(Dead(record, Fault(Reason.MALFORMED, "spoiled"), 1, 3))
        elif kind == "removal" and topic == "orders":
            items.append(Removal(record, order))
        else:
            items.append(_event(record, key, version, content))
    return items


LOGS = st.lists(_DRAWN, max_size=30).map(_log)


def _batches(items: Sequence[Item], cuts: Sequence[int]) -> list[Sequence[Item]]:
    places = [0, *sorted({cut % (len(items) + 1) for cut in cuts}), len(items)]
    return [items[a:b] for a, b in pairwise(places)]


def _folded(items: Sequence[Item]) -> Folded:
    partitions = {(item.record.topic, item.record.partition) for item in items}
    return fold(items, advances={p: Advance(0, 1) for p in partitions}, views=VIEWS)


def _written(batches: Sequence[Sequence[Item]]) -> Database:
    database = Database()
    for batch in batches:
        database.write(_folded(batch))
    return database


@settings(max_examples=300, deadline=None)
@given(items=LOGS, cuts=st.lists(st.integers(0, 30), max_size=6))
def test_any_cut_of_the_log_is_one_event_at_a_time(items: list[Item], cuts: list[int]) -> None:
    model = Model()
    for item in items:
        model.take(item)
    database = _written(_batches(items, cuts))
    assert database.rows == model.rows
    assert database.dead == model.dead
    assert database.removals == model.removals
    assert {p: c for p, c in database.counters.items() if any(c.values())} == model.counters


@settings(deadline=None)
@given(items=LOGS, choices=st.lists(st.booleans(), min_size=30, max_size=30))
def test_any_interleaving_of_the_topics_gives_the_same_rows(
    items: list[Item], choices: list[bool]
) -> None:
    """Each topic keeps its order; which of them comes next is drawn."""
    orders = [item for item in items if item.record.topic == "orders"]
    payments = [item for item in items if item.record.topic == "payments"]
    woven: list[Item] = []
    for orders_next in choices:
        woven += (orders if orders_next else payments)[:1]
        del (orders if orders_next else payments)[:1]
    one, other = _written([items]), _written([[item] for item in [*woven, *orders, *payments]])
    assert other.rows == one.rows
    assert other.dead == one.dead
    assert other.removals == one.removals
    assert other.counters == one.counters


@settings(deadline=None)
@given(items=LOGS)
def test_every_record_is_counted_once(items: list[Item]) -> None:
    database = _written([items])
    counted = sum(sum(counts.values()) for counts in database.counters.values())
    assert counted == len(items)


@settings(deadline=None)
@given(items=LOGS)
def test_the_same_log_again_changes_no_row(items: list[Item]) -> None:
    """Each event meets the row that it, or a higher one, made."""
    database = _written([items])
    rows = dict(database.rows)
    database.dead.clear()
    applied = sum(counts["applied"] for counts in database.counters.values())
    database.write(_folded(items))
    assert database.rows == rows
    assert sum(counts["applied"] for counts in database.counters.values()) == applied


def test_a_conflict_names_its_key_and_version_and_keeps_the_schema() -> None:
    first = _event(_record("orders", 0, 1), ("o1",), 3, "a")
    other = _event(_record("orders", 0, 2), ("o1",), 3, "b", schema_id=2)
    (dead,) = _folded([first, other]).dead
    assert dead.record is other.record
    assert dead.schema_id == 2
    assert dead.fault.reason is Reason.VERSION_CONFLICT
    assert "version 3 of o1" in dead.fault.detail


def test_a_fold_of_positions_alone_moves_no_rows() -> None:
    empty = fold([], advances={("orders", 0): Advance(4, 9)}, views=VIEWS)
    assert not empty.moves_rows
    assert empty.counters == {("orders", 0): [0] * len(COUNTERS)}
