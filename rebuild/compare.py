"""Verify: two builds, row for row, each in its own snapshot.

Everything physical is compared: hidden rows, tombstones, the list of redriven dead letters, and
what the positions count. Both sides hash the rows of one range of keys after the other, in the
binary form in which PostgreSQL sends them, at the same time; where the hashes differ, the rows of
that range come here as JSON text, in two ordered streams that are merged.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import Connection
from sqlalchemy import Table

from rebuild.pace import Pacer
from views import CATALOGUE
from views.positions import APPLIED_DEAD_LETTERS, TOMBSTONES
from views.positions import TABLE as POSITIONS

Row = tuple[Any, ...]
FETCH_ROWS: Final = 5_000
SHOWN: Final = 10
_COUNTED: Final = ("applied", "superseded", "duplicates", "tombstones", "dead")
_OWN: Final = {
    "owner_epoch",
    "owner",
    "end_offset",
    "observed_at",
    "complete_as_of",
    "paused",
    "stopped_reason",
    "loss_accepted_until",
}
"""What a position row says of workers and operators rather than of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A row that is not the same on both sides; a side that lacks it is None."""

    view: str
    key: tuple[str, ...]
    live: Mapping[str, Any] | None
    built: Mapping[str, Any] | None

    @property
    def kind(self) -> str:
        """Seen from the live views."""
        if self.live is None:
            return "missing"
        return "too many" if self.built is None else "different"

    @property
    def columns(self) -> list[str]:
        """The columns whose values differ; none where a row stands alone."""
        if self.live is None or self.built is None:
            return []
        return [name for name, value in self.live.items() if self.built[name] != value]


@dataclass(slots=True)
class ViewResult:
    """What was found in one table. `declared` counts differences that were named beforehand.

    With `expected` the whole table was: whatever differs in it is counted and is no fault.
    """

    view: str
    expected: bool = False
    rows: int = 0
    missing: int = 0
    too_many: int = 0
    different: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    declared: Counter[str] = field(default_factory=Counter)

    @property
    def equal(self) -> bool:
        """Whether nothing was found that was not declared."""
        return self.expected or not (self.missing or self.too_many or self.different)


@dataclass(slots=True)
class Result:
    """The proof, or what stands against it. `first` holds the first differences of each table."""

    views: list[ViewResult] = field(default_factory=list)
    first: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether the two builds hold the same."""
        return all(view.equal for view in self.views)

    @property
    def rows(self) -> int:
        """Rows compared."""
        return sum(view.rows for view in self.views)


def declarable() -> set[str]:
    """What can be declared: every view, and every column as `view.column`."""
    columns = {f"{view.name}.{c.name}" for view in CATALOGUE.views for c in view.table.columns}
    return columns | {view.name for view in CATALOGUE.views}


def compare(
    live: tuple[Connection[Row], str],
    built: tuple[Connection[Row], str],
    *,
    declared: Collection[str] = (),
    pacer: Callable[[], Pacer],
    at_once: int = 2,
) -> Result:
    """Compare a build with the live one; each connection is in a transaction with its snapshot.

    `declared` names columns (`orders.discount`) and views whose differences are expected: they are
    counted and reported, and do not fail the proof. `pacer` makes what each side rests by;
    `at_once`: whether both sides are read at a time, or one after the other.
    """
    result = Result()
    with ThreadPoolExecutor(at_once) as sides:
        for table in [*(view.table for view in CATALOGUE.views), TOMBSTONES, APPLIED_DEAD_LETTERS]:
            found = ViewResult(table.name, expected=table.name in declared)
            named = {d.partition(".")[2] for d in declared if d.partition(".")[0] == table.name}
            ranges = _ranges(table, *live)
            reading = [
                sides.submit(_hashes, table, *side, ranges, pacer()) for side in (live, built)
            ]
            for bounds, one, other in zip(ranges, *(r.result() for r in reading), strict=True):
                if one == other:
                    found.rows += one[0]
                else:
                    part, into = _Range(table, bounds), (found, result.first)
                    _compare_rows(part, live, built, named, into)
            result.views.append(found)
    result.views.append(_compare_positions(live, built, result))
    return result


Key = tuple[Any, ...]
Bounds = tuple[Key | None, Key | None]
"""Keys above the first, up to and with the second; None: no bound."""
Hashed = tuple[int, bytes | None]
"""How many rows there are in a range, and a hash over the hashes of its rows in key order: rows
themselves may be too long to be joined."""


@dataclass(frozen=True, slots=True)
class _Range:
    """Some rows of a table, by their keys."""

    table: Table
    bounds: Bounds

    @property
    def keys(self) -> str:
        """The columns of the key, as SQL."""
        return ", ".join(f't."{column.name}"' for column in self.table.primary_key.columns)

    @property
    def columns(self) -> str:
        """All columns, as SQL."""
        return ", ".join(f't."{column.name}"' for column in self.table.columns)

    @property
    def hashed(self) -> str:
        """64 bits of a whole row in its binary form, as SQL: PostgreSQL's own hash of bytes takes a
        third off the time that SHA-256 for each row would."""
        return f"int8send(hash_record_extended(ROW(record_send(ROW({self.columns}))), 0))"

    @property
    def row(self) -> str:
        """A whole row as JSON text, as SQL."""
        return f"json_build_array({self.columns})::text"

    @property
    def where(self) -> str:
        """The condition on the rows, as SQL."""
        marks = ", ".join("%s" for _ in self.table.primary_key.columns)
        signs = [
            f"({self.keys}) {sign} ({marks})"
            for sign, bound in zip((">", "<="), self.bounds, strict=True)
            if bound is not None
        ]
        return f" WHERE {' AND '.join(signs)}" if signs else ""

    @property
    def values(self) -> list[Any]:
        """What the condition's marks stand for."""
        return [part for bound in self.bounds if bound is not None for part in bound]


def _ranges(table: Table, connection: Connection[Row], build: str) -> list[Bounds]:
    """Ranges of keys that hold about as many rows each."""
    keys = _Range(table, (None, None)).keys
    rows = connection.execute(
        f"SELECT * FROM (SELECT {keys}, row_number() OVER (ORDER BY {keys}) AS number"
        f" FROM {build}.{table.name} t) n WHERE number %% %s = 0 ORDER BY number",
        (FETCH_ROWS,),
    )
    ends: list[Key | None] = [row[:-1] for row in rows]
    return list(zip([None, *ends], [*ends, None], strict=True))


def _hashes(
    table: Table,
    connection: Connection[Row],
    build: str,
    ranges: Sequence[Bounds],
    pacer: Pacer,
) -> list[Hashed]:
    found: list[Hashed] = []
    for bounds in ranges:
        part = _Range(table, bounds)
        row = connection.execute(
            f"SELECT count(*), sha256(string_agg({part.hashed}, ''::bytea ORDER BY {part.keys}))"
            f" FROM {build}.{table.name} t{part.where}",
            part.values,
        ).fetchone()
        assert row is not None
        found.append((row[0], row[1]))
        pacer(len(found))
    return found


def _compare_rows(
    part: _Range,
    live: tuple[Connection[Row], str],
    built: tuple[Connection[Row], str],
    declared: Collection[str],
    into: tuple[ViewResult, list[Difference]],
) -> None:
    """Row by row, where something differs."""
    found, first = into
    name = part.table.name
    columns = [str(c.name) for c in part.table.columns]  # plain texts, whatever SQLAlchemy keeps
    width = len(part.table.primary_key.columns)
    with (
        closing(_stream(part, *live)) as left_rows,
        closing(_stream(part, *built)) as right_rows,
    ):
        for left, right in _merged(left_rows, right_rows, width):
            found.rows += 1
            if left == right:
                continue
            difference = _difference(name, columns, width, left, right)
            shown = sum(each.view == name for each in first)
            if _count(found, difference, declared) and shown < SHOWN:
                first.append(difference)


def _count(found: ViewResult, difference: Difference, declared: Collection[str]) -> bool:
    """Count a difference; False where it was declared."""
    shown = not found.expected
    if difference.live is None:
        found.missing += 1
    elif difference.built is None:
        found.too_many += 1
    else:
        named = [name for name in difference.columns if name in declared]
        found.declared.update(named)
        others = [name for name in difference.columns if name not in declared]
        found.columns.update(others)
        found.different += bool(others)
        return shown and bool(others)
    return shown


def _stream(part: _Range, connection: Connection[Row], build: str) -> Generator[Row, None, None]:
    """Rows in key order: the key's columns, then the whole row as JSON text."""
    with connection.cursor(name=f"{build}_{part.table.name}") as cursor:
        cursor.itersize = FETCH_ROWS
        cursor.execute(
            f"SELECT {part.keys}, {part.row} FROM {build}.{part.table.name} t{part.where}"
            f" ORDER BY {part.keys}",
            part.values,
        )
        yield from cursor


def _merged(
    left: Iterator[Row], right: Iterator[Row], width: int
) -> Iterator[tuple[Row | None, Row | None]]:
    """Pair the rows of equal keys; one side is None where the other stands alone."""
    mine, theirs = next(left, None), next(right, None)
    while mine is not None or theirs is not None:
        if theirs is None or (mine is not None and mine[:width] < theirs[:width]):
            yield mine, None
            mine = next(left, None)
        elif mine is None or theirs[:width] < mine[:width]:
            yield None, theirs
            theirs = next(right, None)
        else:
            yield mine, theirs
            mine, theirs = next(left, None), next(right, None)


def _difference(
    view: str, columns: list[str], width: int, left: Row | None, right: Row | None
) -> Difference:
    either = left or right
    assert either is not None
    return Difference(
        view=view,
        key=tuple(str(part) for part in either[:width]),
        live=_taken_apart(columns, left),
        built=_taken_apart(columns, right),
    )


def _taken_apart(columns: list[str], row: Row | None) -> dict[str, Any] | None:
    """Values by column; numbers keep every digit."""
    if row is None:
        return None
    values = json.loads(row[-1], parse_float=str, parse_int=str)
    return dict(zip(columns, values, strict=True))


def _compare_positions(
    live: tuple[Connection[Row], str], built: tuple[Connection[Row], str], result: Result
) -> ViewResult:
    """Compare what the positions say of the log.

    A key that is found in two partitions can be met in either order, so which of its events counts
    as superseded may differ; where only that does, it is a note.
    """
    found = ViewResult(POSITIONS.name)
    left, right = _positions(*live), _positions(*built)
    for place in sorted(left.keys() | right.keys()):
        found.rows += 1
        difference = Difference(
            view=POSITIONS.name, key=place, live=left.get(place), built=right.get(place)
        )
        if difference.live == difference.built:
            continue
        if _counted_otherwise(difference):
            result.notes.append(
                f"{':'.join(place)} has the same events counted another way: live"
                f" {_counts(difference.live)}, built {_counts(difference.built)}"
            )
        elif _count(found, difference, ()):
            result.first.append(difference)
    return found


def _positions(connection: Connection[Row], build: str) -> dict[tuple[str, ...], dict[str, Any]]:
    columns = [str(c.name) for c in POSITIONS.columns if c.name not in _OWN]
    rows = connection.execute(
        f"SELECT json_build_array({', '.join(f't.{name}' for name in columns)})::text"
        f" FROM {build}.{POSITIONS.name} t WHERE next_offset > 0"
    )
    found = [dict(zip(columns, json.loads(row[0]), strict=True)) for row in rows]
    return {(str(row["topic"]), str(row["partition"])): row for row in found}


def _counted_otherwise(difference: Difference) -> bool:
    if difference.live is None or difference.built is None:
        return False
    if not set(difference.columns) <= set(_COUNTED):
        return False
    return _total(difference.live) == _total(difference.built)


def _total(row: Mapping[str, Any]) -> int:
    return sum(int(row[name]) for name in _COUNTED)


def _counts(row: Mapping[str, Any] | None) -> str:
    return "-" if row is None else "/".join(str(row[name]) for name in _COUNTED)
