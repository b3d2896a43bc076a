"""The views at one position after another, each made from the one before.

Stands apart from `fold.expect`, which folds a whole log at once: tens of thousands of answers, each
at a position of its own, can only be judged by going along. The rows are those of the same fold.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.faults.oracle.events import Contract, Decoder, FindSchema, Record
from tests.faults.oracle.fold import Fold, Recorded
from tests.faults.oracle.rows import MEASURES, OPEN, Row, day

Key = tuple[str, ...]
Position = Mapping[tuple[str, int], int]


class Listing:
    """The rows of a view in the order of their keys."""

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}
        self._keys: list[Key] = []

    def __getitem__(self, key: Key) -> Row:
        return self._rows[key]

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, *key: str) -> Row | None:
        """The row, if there is one."""
        return self._rows.get(key)

    def put(self, key: Key, row: Row | None) -> None:
        """Set a row; None takes it out."""
        if row is None:
            if self._rows.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
            return
        if key not in self._rows:
            insort(self._keys, key)
        self._rows[key] = row

    def page(self, first: int, after: Key | None = None) -> list[Row]:
        """So many rows behind a key, or from the start."""
        start = 0 if after is None else bisect_right(self._keys, after)
        return [self._rows[key] for key in self._keys[start : start + first]]

    def under(self, *prefix: str) -> list[Row]:
        """Every row whose key begins so."""
        start = bisect_left(self._keys, prefix)
        return [self._rows[key] for key in self._beginning(start, prefix)]

    def _beginning(self, start: int, prefix: Key) -> Iterator[Key]:
        for at in range(start, len(self._keys)):
            if self._keys[at][: len(prefix)] != prefix:
                return
            yield self._keys[at]


class Following:
    """Goes along a log. What readers may see of the views stands in the listings.

    For logs in which no key moves between partitions: there the log alone decides every value.
    """

    def __init__(
        self, log: Iterable[Record], find: FindSchema, *, recorded: Recorded | None = None
    ) -> None:
        contract = Contract()
        self._decoder = Decoder(find, contract)
        self._fold = Fold(contract, recorded or {})
        self._log: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for record in log:
            self._log[record.topic, record.partition].append(record)
        self._taken: dict[tuple[str, int], int] = defaultdict(int)
        self._parts: dict[str, Sequence[tuple[Listing, Key, Row]]] = {}
        self.orders, self.payments = Listing(), Listing()
        self.customer_totals, self.daily_sales = Listing(), Listing()
        self.orders_of_total: dict[Key, Listing] = defaultdict(Listing)
        self.orders_of_day: dict[Key, Listing] = defaultdict(Listing)

    def go_on(self, position: Position) -> None:
        """Take in everything up to there. ValueError: a partition lies behind what was taken."""
        touched = {self._fold.take(self._decoder, record) for record in self._up_to(position)}
        for order_id in touched - {None}:
            self._tell_anew(str(order_id))

    def redrive(self, order_id: str) -> None:
        """Take in the redriven dead letters of an order that were passed."""
        self._fold.redrive(order_id)
        self._tell_anew(order_id)

    def _up_to(self, position: Position) -> Iterator[Record]:
        for place, end in position.items():
            records, taken = self._log[place], self._taken[place]
            if taken and records[taken - 1].offset >= end:
                raise ValueError(f"{place} stands at {records[taken - 1].offset}, behind {end}")
            while taken < len(records) and records[taken].offset < end:
                yield records[taken]
                taken += 1
            self._taken[place] = taken

    def _tell_anew(self, order_id: str) -> None:
        views = self._fold.views_of(order_id)
        before, row = self.orders.get(order_id), views.orders.get((order_id,))
        for key, payment in views.payments.items():
            self.payments.put(key, _decided(payment))
        shown = _decided(row) if row is not None and row["visible"] else None
        self.orders.put((order_id,), shown)
        for order, put in ((before, None), (shown, shown)):
            if order is not None:
                total, day = _groups(order)
                self.orders_of_total[total].put((order_id,), put)
                self.orders_of_day[day].put((order_id,), put)
        parts = [
            *((self.customer_totals, key, part) for key, part in views.customer_totals.items()),
            *((self.daily_sales, key, part) for key, part in views.daily_sales.items()),
        ]
        for sign, some in ((-1, self._parts.get(order_id, ())), (1, parts)):
            for listing, key, part in some:
                _add(listing, key, part, sign)
        self._parts[order_id] = parts


def _groups(order: Row) -> tuple[Key, Key]:
    return (order["customer_id"], order["currency"]), (day(order["placed_at"]), order["currency"])


def _add(listing: Listing, key: Key, part: Row, sign: int) -> None:
    there: Mapping[str, Any] = listing.get(*key) or {}
    row = part | {name: there.get(name, 0) + sign * part[name] for name in MEASURES}
    listing.put(key, row if row["order_count"] else None)


def _decided(row: Row) -> Row:
    assert OPEN not in row.values(), f"a key moved between partitions: {row}"
    return row
