"""The SELECTs of the plain path: rows by key, pages, counts, and whether there is more. Pure.

Each one answers for many parents at once, so a nested list costs one statement however many rows
its parents are.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from api.declare import Equal, Relation, ViewType
from api.filters import Condition, sql_of
from api.page import Cursor, Order, Window, beyond_sql, order_sql, upto_sql
from api.sql import Sql, column, joined, name, text

PARENT = "parent_number"
"""The column that says which of the parents a row belongs to, counted from 1."""

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """The rows of a connection, before paging: of a view, or of each parent's relation."""

    target: ViewType
    where: Condition
    order: Order
    parent: ViewType | None = None
    relation: Relation | None = None


def rows_by_key(build: str, view_type: ViewType, keys: Sequence[Key]) -> Sql:
    """The visible rows with these keys."""
    kinds = [view_type.fields[column_name].kind.sql for column_name in view_type.key]
    matches = (
        text(f"{column('t', column_name)} = p.k{index}")
        for index, column_name in enumerate(view_type.key)
    )
    return (
        text("SELECT ")
        + _columns(view_type, "t")
        + text(" FROM ")
        + _keys(keys, kinds)
        + text(f" JOIN {table(build, view_type)} AS t ON ")
        + joined(" AND ", [*matches, *map(text, visible(view_type, "t"))])
    )


def page(build: str, listing: Listing, window: Window, *, parents: Sequence[Key]) -> Sql:
    """One row more than the page, per parent, nearest first; a backward page comes reversed."""
    beyond = [
        beyond_sql(listing.target, listing.order, cursor=window.after, table="t", after=True),
        beyond_sql(listing.target, listing.order, cursor=window.before, table="t", after=False),
    ]
    inner = (
        text("SELECT ")
        + _columns(listing.target, "t")
        + _from_where(build, listing, beyond)
        + text(" ORDER BY ")
        + order_sql(listing.order, "t", backward=window.backward)
        + Sql(" LIMIT %s", (window.size + 1,))
    )
    return (
        text(f"SELECT p.n AS {PARENT}, c.* FROM ")
        + _parents(listing, parents)
        + text(" CROSS JOIN LATERAL (")
        + inner
        + text(") AS c ORDER BY p.n, ")
        + order_sql(listing.order, "c", backward=window.backward)
    )


def count(build: str, listing: Listing, cap: int, *, parents: Sequence[Key]) -> Sql:
    """How many rows there are per parent, counted up to one more than the cap."""
    rows = text("SELECT 1") + _from_where(build, listing, []) + Sql(" LIMIT %s", (cap + 1,))
    return (
        text(f"SELECT p.n AS {PARENT}, (SELECT count(*) FROM (")
        + rows
        + text(") AS c) AS found FROM ")
        + _parents(listing, parents)
    )


def any_beyond(
    build: str, listing: Listing, cursor: Cursor, *, after: bool, parents: Sequence[Key]
) -> Sql:
    """Whether, per parent, a row lies at the cursor or on the side that the page leaves out."""
    there = upto_sql(listing.target, listing.order, cursor=cursor, table="t", after=after)
    return (
        text(f"SELECT p.n AS {PARENT}, (SELECT count(*) > 0 FROM (SELECT 1")
        + _from_where(build, listing, [there])
        # In the order, or PostgreSQL hopes to meet one soon, and reads a large table whole.
        + text(" ORDER BY ")
        + order_sql(listing.order, "t", backward=after)
        + text(" LIMIT 1) AS c) AS found FROM ")
        + _parents(listing, parents)
    )


def _from_where(build: str, listing: Listing, more: Iterable[Sql]) -> Sql:
    relation = listing.relation
    keys = [f"p.k{index}" for index in range(len(relation.by))] if relation else []
    fixed = [*(joins(relation, "t", keys) if relation else ()), *visible(listing.target, "t")]
    conditions = [*map(text, fixed), sql_of(listing.where, "t"), *more]
    start = text(f" FROM {table(build, listing.target)} AS t WHERE ")
    return start + joined(" AND ", conditions)


def joins(relation: Relation, target: str, parent: Sequence[str]) -> Iterator[str]:
    """The conditions of a relation: on its target, by alias, and the parent's joined columns."""
    for join, theirs in zip(relation.by, parent, strict=True):
        ours = column(target, join.target)
        if isinstance(join, Equal):
            yield f"{ours} = {theirs}"
        else:
            yield (
                f"{ours} >= ({theirs}::timestamp AT TIME ZONE 'UTC')"
                f" AND {ours} < (({theirs} + 1)::timestamp AT TIME ZONE 'UTC')"
            )


def visible(view_type: ViewType, target: str) -> Iterator[str]:
    """The condition that leaves out hidden rows, where a view has them."""
    if view_type.hides:
        yield column(target, "visible")


def _parents(listing: Listing, parents: Sequence[Key]) -> Sql:
    if listing.relation is None or listing.parent is None:
        return text("(SELECT 1 AS n) AS p")
    fields = listing.parent.fields
    return _keys(parents, [fields[join.column].kind.sql for join in listing.relation.by])


def _keys(keys: Sequence[Key], sql_types: Sequence[str]) -> Sql:
    lists = [Sql(f"%s::{each}[]", ([key[i] for key in keys],)) for i, each in enumerate(sql_types)]
    names = ", ".join(f"k{index}" for index in range(len(sql_types)))
    return text("unnest(") + joined(", ", lists) + text(f") WITH ORDINALITY AS p({names}, n)")


def _columns(view_type: ViewType, target: str) -> Sql:
    return text(", ".join(column(target, each) for each in view_type.columns))


def table(build: str, view_type: ViewType) -> str:
    """A view's table in a build."""
    return f"{name(build)}.{name(view_type.view.name)}"
