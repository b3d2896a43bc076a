"""Verify: two builds, row for row. Two ordered streams, each in its own snapshot, merged.

Everything physical is compared, hidden rows and tombstones too, and what the positions count. The
rows come as JSON text made by PostgreSQL: equal text is equal, and only rows that differ are taken
apart.
"""

import json
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import Connection
from sqlalchemy import Table

from views import CATALOGUE
from views.positions import TABLE as POSITIONS
from views.positions import TOMBSTONES

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
    """What was found in one table. `declared` counts differences that were named beforehand."""

    view: str
    rows: int = 0
    missing: int = 0
    too_many: int = 0
    different: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    declared: Counter[str] = field(default_factory=Counter)

    @property
    def equal(self) -> bool:
        """Whether nothing was found that was not declared."""
        return not (self.missing or self.too_many or self.different)


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


def columns() -> set[str]:
    """Every column that can be declared, as `view.column`."""
    return {f"{view.name}.{c.name}" for view in CATALOGUE.views for c in view.table.columns}


def compare(
    live: tuple[Connection[Row], str],
    built: tuple[Connection[Row], str],
    *,
    declared: Collection[str] = (),
) -> Result:
    """Compare a build with the live one; each connection is in a transaction with its snapshot.

    `declared` names columns (`orders.discount`) whose differences are expected: they are counted
    and reported, and do not fail the proof.
    """
    result = Result()
    for table in [*(view.table for view in CATALOGUE.views), TOMBSTONES]:
        named = {d.partition(".")[2] for d in declared if d.partition(".")[0] == table.name}
        result.views.append(_compare_table(table, live, built, named, result.first))
    result.views.append(_compare_positions(live, built, result))
    return result


def _compare_table(
    table: Table,
    live: tuple[Connection[Row], str],
    built: tuple[Connection[Row], str],
    declared: Collection[str],
    first: list[Difference],
) -> ViewResult:
    columns = [str(c.name) for c in table.columns]  # plain texts, whatever SQLAlchemy keeps
    width = len(table.primary_key.columns)
    found = ViewResult(table.name)
    shown = 0
    with (
        closing(_stream(table, *live)) as left_rows,
        closing(_stream(table, *built)) as right_rows,
    ):
        for left, right in _merged(left_rows, right_rows, width):
            found.rows += 1
            if left == right:
                continue
            difference = _difference(table.name, columns, width, left, right)
            if _count(found, difference, declared) and shown < SHOWN:
                first.append(difference)
                shown += 1
    return found


def _count(found: ViewResult, difference: Difference, declared: Collection[str]) -> bool:
    """Count a difference; False where it was declared."""
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
        return bool(others)
    return True


def _stream(table: Table, connection: Connection[Row], build: str) -> Generator[Row, None, None]:
    """Rows in key order: the key's columns, then the whole row as JSON text."""
    quoted = [f't."{column.name}"' for column in table.columns]
    keys = [f't."{column.name}"' for column in table.primary_key.columns]
    name = f"{build}_{table.name}"
    with connection.cursor(name=name) as cursor:
        cursor.itersize = FETCH_ROWS
        cursor.execute(
            f"SELECT {', '.join(keys)}, json_build_array({', '.join(quoted)})::text"
            f" FROM {build}.{table.name} t ORDER BY {', '.join(keys)}"
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
