"""Holds the tables of a build against what the oracle expects, in one snapshot, column by column.

The only part of the oracle that talks to PostgreSQL. It reads every value as text, so that a
column of the wrong type (money as a float, say) is a difference and not a rounding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.faults.oracle.fold import Coordinate, Expected, Recorded, Trace
from tests.faults.oracle.rows import (
    MEASURES,
    OPEN,
    ORDER_EVENT,
    PAYMENT_EVENT,
    SOURCE,
    Row,
    placeholder,
)

_MONEY = frozenset(
    {
        "amount",
        "discount",
        "refunded_amount",
        "paid",
        "refunded",
        "outstanding",
        "ordered",
    }
)
_TIMES = frozenset({"placed_at", "updated_at", "occurred_at", "source_recorded_at"})
_NUMBERS = frozenset(
    {
        "version",
        "payment_count",
        "mismatched_payment_count",
        "order_count",
        "cancelled_count",
        "source_partition",
        "source_offset",
        "source_schema_id",
    }
)
_DECIMAL_TEXT = re.compile(r"(-?)([0-9]+)\.([0-9]{4})")
_SUMS = ("paid", "refunded", "outstanding", "payment_count", "mismatched_payment_count")
_KEYS: dict[str, tuple[str, ...]] = {
    "orders": ("order_id",),
    "payments": ("order_id", "payment_id"),
    "customer_totals": ("customer_id", "currency"),
    "daily_sales": ("day", "currency"),
}
_COLUMNS: dict[str, tuple[str, ...]] = {
    "orders": ("order_id", "version", *ORDER_EVENT, *_SUMS, "visible", *SOURCE),
    "payments": ("order_id", "payment_id", "version", *PAYMENT_EVENT, *SOURCE),
    "customer_totals": ("customer_id", "currency", *MEASURES),
    "daily_sales": ("day", "currency", *MEASURES),
}
# One class for a body that does not hold together: two strict decoders may find another end first.
_BROKEN_BODY = frozenset({"TRUNCATED", "TRAILING_BYTES", "MALFORMED", "OVER_LIMIT"})
_CLASSIFIED = ("applied", "superseded", "duplicates", "dead")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it must be, with the events behind it where it is a row."""

    place: str
    said: str
    traces: tuple[Trace, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.place}: {self.said}"]
        for t in self.traces:
            key = "/".join(t.key)[:80]
            lines.append(
                f"    {t.topic}/{t.partition}@{t.offset} {key} v{t.version} {t.status} {t.outcome}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Held:
    """What the database holds, read in one snapshot."""

    rows: dict[str, dict[tuple[str, ...], Row]]
    positions: dict[tuple[str, int], dict[str, int]]
    dead_letters: list[tuple[Coordinate, str, str]]

    @property
    def recorded(self) -> Recorded:
        return {at: (reason, state) for at, reason, state in self.dead_letters}

    @property
    def next_offsets(self) -> dict[tuple[str, int], int]:
        return {at: row["next_offset"] for at, row in self.positions.items()}


def compare(dsn: str, build: str, expected: Expected) -> list[Difference]:
    """Every difference between the build's tables and `expected`; an empty list is equality."""
    return differences(hold(dsn, build), expected)


def differences(held: Held, expected: Expected) -> list[Difference]:
    return [
        *_row_differences(held, expected),
        *_position_differences(held, expected),
        *_dead_letter_differences(held, expected),
    ]


def hold(dsn: str, build: str) -> Held:
    """Read the build and the dead letters in one REPEATABLE READ snapshot."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        connection.execute("SET DateStyle TO 'ISO'")
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        held = Held(
            rows={view: _view(connection, build, view) for view in _COLUMNS},
            positions=_positions(connection, build),
            dead_letters=_dead_letters(connection),
        )
        connection.execute("COMMIT")
    return held


def _view(connection: psycopg.Connection[Any], build: str, view: str) -> dict[tuple[str, ...], Row]:
    columns = _COLUMNS[view]
    query = sql.SQL("SELECT {} FROM {}").format(
        sql.SQL(", ").join(_as_text(column) for column in columns), sql.Identifier(build, view)
    )
    rows: dict[tuple[str, ...], Row] = {}
    for values in connection.execute(query):
        row = {c: _plain(c, v) for c, v in zip(columns, values, strict=True)}
        rows[tuple(row[name] for name in _KEYS[view])] = row
    return rows


def _as_text(column: str) -> sql.Composable:
    name = sql.Identifier(column)
    if column in _TIMES:
        return sql.SQL("(extract(epoch FROM {}) * 1000000)::numeric(30, 0)::text").format(name)
    return sql.SQL("{}::text").format(name)


def _plain(column: str, value: str | None) -> Any:
    if value is None:
        return None
    if column in _MONEY:
        match = _DECIMAL_TEXT.fullmatch(value)
        return int("".join(match.groups())) if match else f"{value} (not a decimal of scale 4)"
    if column in _TIMES or column in _NUMBERS:
        return int(value)
    if column == "visible":
        return value == "true"
    return json.loads(value) if column == "items" else value


def _positions(
    connection: psycopg.Connection[Any], build: str
) -> dict[tuple[str, int], dict[str, int]]:
    names = ("next_offset", "applied", "superseded", "duplicates", "tombstones", "dead")
    query = sql.SQL("SELECT topic, partition, {} FROM {}").format(
        sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(build, "positions")
    )
    return {
        (topic, partition): dict(zip(names, values, strict=True))
        for topic, partition, *values in connection.execute(query)
    }


def _dead_letters(connection: psycopg.Connection[Any]) -> list[tuple[Coordinate, str, str]]:
    query = 'SELECT topic, partition, "offset", reason, state FROM ingest.dead_letters'
    return [
        ((topic, partition, offset), reason, state)
        for topic, partition, offset, reason, state in connection.execute(query)
    ]


def _row_differences(held: Held, expected: Expected) -> Iterator[Difference]:
    for view, must in expected.views.named().items():
        has = held.rows[view]
        loose = expected.views.undecided and view not in ("orders", "payments")
        for key in sorted(set(must) | set(has)):
            said = None if loose else _row_said(view, key, must.get(key), has.get(key), expected)
            if said is not None:
                yield Difference(f"{view} {key}", said, _behind(view, key, expected))


def _row_said(
    view: str, key: tuple[str, ...], must: Row | None, has: Row | None, expected: Expected
) -> str | None:
    if must is None and view == "orders" and key[0] in expected.views.optional_orders:
        must = placeholder(key[0], 0)
    if has is None:
        return "the row is missing"
    if must is None:
        return "the row must not exist"
    wrong = [
        f"{column} is {has[column]!r}, must be {value!r}"
        for column, value in must.items()
        if value is not OPEN and has[column] != value
    ]
    return "; ".join(wrong) if wrong else None


def _behind(view: str, key: tuple[str, ...], expected: Expected) -> tuple[Trace, ...]:
    return tuple(expected.events_of(key[0])[-12:]) if view in ("orders", "payments") else ()


def _position_differences(held: Held, expected: Expected) -> Iterator[Difference]:
    for at in sorted(set(expected.next_offsets) | set(held.positions)):
        place = f"positions {at[0]}/{at[1]}"
        row, end = held.positions.get(at), expected.next_offsets.get(at)
        if row is None or end is None:
            # A partition without a row stands at offset 0.
            if row is None and not end:
                continue
            yield Difference(place, "the row is missing" if row is None else "no such partition")
            continue
        if row["next_offset"] != end:
            yield Difference(place, f"next_offset is {row['next_offset']}, must be {end}")
        counters = asdict(expected.counters[at])
        for said in _counters_said(row, counters):
            yield Difference(place, said)


def _counters_said(row: Mapping[str, int], must: Mapping[str, int]) -> Iterator[str]:
    """Exact, but for events of keys that moved: those are only bounded, and their sum is exact."""
    slack = must["ambiguous"]
    for name in ("tombstones", *_CLASSIFIED):
        spread = 0 if name == "tombstones" else slack
        if abs(row[name] - must[name]) > spread:
            about = f" (±{spread}, moved keys)" if spread else ""
            yield f"{name} is {row[name]}, must be {must[name]}{about}"
    total, due = (sum(counters[name] for name in _CLASSIFIED) for counters in (row, must))
    if total != due:
        yield f"{total} events are accounted for, the log has {due}"


def _dead_letter_differences(held: Held, expected: Expected) -> Iterator[Difference]:
    moved = any(counters.ambiguous for counters in expected.counters.values())
    seen: set[Coordinate] = set()
    for at, reason, state in sorted(held.dead_letters):
        if at[:2] not in expected.next_offsets or at[2] >= expected.next_offsets[at[:2]]:
            continue
        place = f"dead letter {at[0]}/{at[1]}@{at[2]}"
        if at in seen:
            yield Difference(place, "recorded twice")
        seen.add(at)
        must = expected.dead_letters.get(at)
        if must is None:
            if at not in expected.cured and not (moved and reason == "VERSION_CONFLICT"):
                yield Difference(place, f"{reason}, {state}: the record is good")
        elif not _same_reason(reason, must.reason):
            yield Difference(place, f"reason is {reason}, must be {must.detail}")
    for at in sorted(set(expected.dead_letters) - seen):
        must = expected.dead_letters[at]
        if not (moved and must.reason == "VERSION_CONFLICT"):
            yield Difference(f"dead letter {at[0]}/{at[1]}@{at[2]}", f"missing: {must.detail}")


def _same_reason(one: str, other: str) -> bool:
    return one == other or {one, other} <= _BROKEN_BODY


_SETTLED = """
WITH settled AS (
    SELECT order_id, currency, sum(amount) AS paid, sum(refunded_amount) AS refunded
    FROM {payments} WHERE status IN ('CAPTURED', 'REFUNDED') GROUP BY order_id, currency
), counted AS (
    SELECT order_id, count(*) AS payments FROM {payments} GROUP BY order_id
)
SELECT o.order_id FROM {orders} o
LEFT JOIN settled s ON s.order_id = o.order_id AND s.currency = o.currency
LEFT JOIN counted c ON c.order_id = o.order_id
WHERE o.paid <> coalesce(s.paid, 0) OR o.refunded <> coalesce(s.refunded, 0)
   OR o.payment_count <> coalesce(c.payments, 0)
"""
_ORDER_SUMS = """
SELECT currency, count(*) AS order_count,
    count(*) FILTER (WHERE status = 'CANCELLED') AS cancelled_count,
    coalesce(sum(amount - coalesce(discount, 0)) FILTER (WHERE status <> 'CANCELLED'), 0)
        AS ordered,
    sum(paid) AS paid, sum(refunded) AS refunded, sum(outstanding) AS outstanding
FROM {orders} WHERE visible GROUP BY currency
"""
_GROUP_SUMS = """
SELECT currency, sum(order_count), sum(cancelled_count), sum(ordered), sum(paid), sum(refunded),
    sum(outstanding)
FROM {view} GROUP BY currency
"""


def check_invariants(dsn: str, build: str) -> list[Difference]:
    """What any reader may check at any moment: the invariants of money, in SQL, in one snapshot."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found = [*_unsettled(connection, build), *_unequal_sums(connection, build)]
        connection.execute("COMMIT")
    return found


def _tables(build: str) -> dict[str, sql.Identifier]:
    return {name: sql.Identifier(build, name) for name in _COLUMNS}


def _unsettled(connection: psycopg.Connection[Any], build: str) -> Iterator[Difference]:
    for (order_id,) in connection.execute(sql.SQL(_SETTLED).format(**_tables(build))):
        yield Difference(f"orders {order_id}", "paid, refunded or count differ from its payments")


def _unequal_sums(connection: psycopg.Connection[Any], build: str) -> Iterator[Difference]:
    tables = _tables(build)
    must = _by_currency(connection.execute(sql.SQL(_ORDER_SUMS).format(**tables)))
    for view in ("customer_totals", "daily_sales"):
        has = _by_currency(connection.execute(sql.SQL(_GROUP_SUMS).format(view=tables[view])))
        for currency in sorted(set(must) | set(has)):
            if must.get(currency) != has.get(currency):
                said = f"{has.get(currency)} differs from orders: {must.get(currency)}"
                yield Difference(f"{view} {currency}", f"{MEASURES} {said}")


def _by_currency(rows: Iterable[tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    return {currency: tuple(sums) for currency, *sums in rows}
