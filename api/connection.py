"""A connection being answered: one page, and what is asked about the rest only when it is asked.

Stands apart from `page.py`, which is pure: this is the object that the fields of a connection read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from api.batches import Batches
from api.declare import Relation, ViewType
from api.filters import condition_of, digest
from api.page import (
    Cursor,
    CursorScope,
    PageArguments,
    PageSizes,
    Window,
    cursor_prefix,
    order_of,
    row_cursor,
    window_of,
)
from api.position import Consistency, require, requirement_of
from api.rows import Row
from api.selects import Key, Listing


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionArguments:
    """The arguments of a connection field, named and spelled as in GraphQL."""

    page: PageArguments
    where: Mapping[str, Any] | None = None
    order_by: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionField:
    """Which connection of the schema this is: a root field, or a relation of a parent type."""

    target: ViewType
    parent: ViewType | None = None
    relation: Relation | None = None

    @property
    def scope(self) -> str:
        """What its cursors are bound to."""
        if self.parent is None or self.relation is None:
            return f"Query.{self.target.many}"
        return f"{self.parent.name}.{self.relation.name}"


@dataclass(frozen=True)
class Page:
    """The page of a connection; its members are the fields of the connection type."""

    batches: Batches
    listing: Listing
    window: Window
    parent: Key
    rows: Sequence[Row]
    has_more: bool
    prefix: str

    @property
    def nodes(self) -> Sequence[Row]:
        return self.rows

    @cached_property
    def edges(self) -> list[dict[str, Any]]:
        return [{"cursor": self._cursor(row), "node": row} for row in self.rows]

    @property
    def page_info(self) -> "Page":
        return self

    @property
    def start_cursor(self) -> str | None:
        return self._cursor(self.rows[0]) if self.rows else None

    @property
    def end_cursor(self) -> str | None:
        return self._cursor(self.rows[-1]) if self.rows else None

    @property
    async def has_next_page(self) -> bool:
        if not self.window.backward and self.has_more:
            return True
        before = self.window.before
        return before is not None and await self.batches.any_beyond(
            self.listing, before, after=False, parent=self.parent
        )

    @property
    async def has_previous_page(self) -> bool:
        if self.window.backward and self.has_more:
            return True
        after = self.window.after
        return after is not None and await self.batches.any_beyond(
            self.listing, after, after=True, parent=self.parent
        )

    @property
    async def total_count(self) -> int:
        found = await self.batches.count(self.listing, parent=self.parent)
        return min(found, self.batches.count_cap)

    @property
    async def total_count_is_exact(self) -> bool:
        found = await self.batches.count(self.listing, parent=self.parent)
        return found <= self.batches.count_cap

    def _cursor(self, row: Row) -> str:
        return row_cursor(
            self.listing.target, self.listing.order, row=row.values, prefix=self.prefix
        )


async def answer(
    field: ConnectionField,
    arguments: ConnectionArguments,
    *,
    parent: Key,
    batches: Batches,
    sizes: PageSizes,
) -> Page:
    """The page that the arguments ask for.

    BadUserInputError: arguments or cursors make no sense here. StaleError: a cursor was made at a
    position that this snapshot does not contain yet; going on from it could go back in time.
    """
    condition = condition_of(field.target, arguments.where)
    order = order_of(field.target, arguments.order_by)
    terms = tuple((term.column, term.descending) for term in order)
    scope = CursorScope(field.scope, digest(condition, terms))
    window = window_of(field.target, order, arguments=arguments.page, scope=scope, sizes=sizes)
    require_cursors(window.cursors, batches.snapshot.consistency)
    listing = Listing(field.target, condition, order, field.parent, field.relation)
    rows = await batches.page(listing, window, parent=parent)
    kept = rows[: window.size]
    return Page(
        batches=batches,
        listing=listing,
        window=window,
        parent=parent,
        rows=kept[::-1] if window.backward else kept,
        has_more=len(rows) > window.size,
        prefix=cursor_prefix(scope, batches.snapshot.consistency.token),
    )


def require_cursors(cursors: Iterable[Cursor], consistency: Consistency) -> None:
    """Return if the snapshot contains the positions at which the cursors were made.

    StaleError: not yet. BadUserInputError: the position of one is none of ours.
    """
    topics = sorted({state.topic for state in consistency.partitions})
    for cursor in cursors:
        requirement = requirement_of(at_least=cursor.position, max_staleness_ms=None, topics=topics)
        require(requirement, consistency)
