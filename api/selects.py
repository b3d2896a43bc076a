"""The SELECTs of the plain path: rows by key, pages, counts, and whether there is more. Pure.

Each one answers for many parents at once, so a nested list costs one statement however many rows
its parents are.
"""

from collections.abc import Iterable, Sequence
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
        + text(f" JOIN {_table(build, view_type)} AS t ON ")
        + joined(" AND ", [*matches, *_visible(view_type)])
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
        text(f"SELECT p.n AS {PARENT}, EXISTS (SELECT 1")
        + _from_where(build, listing, [there])
        + text(") AS found FROM ")
        + _parents(listing, parents)
    )


def _from_where(build: str, listing: Listing, more: Iterable[Sql]) -> Sql:
    joins = _joins(listing.relation) if listing.relation else ()
    conditions = [*joins, *_visible(listing.target), sql_of(listing.where, "t"), *more]
    table = text(f" FROM {_table(build, listing.target)} AS t WHERE ")
    return table + joined(" AND ", conditions)


def _joins(relation: Relation) -> Iterable[Sql]:
    for index, join in enumerate(relation.by):
        target, parent = column("t", join.target), f"p.k{index}"
        if isinstance(join, Equal):
            yield text(f"{target} = {parent}")
        else:
            yield text(
                f"{target} >= ({parent}::timestamp AT TIME ZONE 'UTC')"
                f" AND {target} < (({parent} + 1)::timestamp AT TIME ZONE 'UTC')"
            )


def _visible(view_type: ViewType) -> Iterable[Sql]:
    if view_type.hides:
        yield text(column("t", "visible"))


def _parents(listing: Listing, parents: Sequence[Key]) -> Sql:
    if listing.relation is None or listing.parent is None:
        return text("(SELECT 1 AS n) AS p")
    fields = listing.parent.fields
    return _keys(parents, [fields[join.column].kind.sql for join in listing.relation.by])


def _keys(keys: Sequence[Key], sql_types: Sequence[str]) -> Sql:
    lists = [Sql(f"%s::{each}[]", ([key[i] for key in keys],)) for i, each in enumerate(sql_types)]
    names = ", ".join(f"k{index}" for index in range(len(sql_types)))
    return text("unnest(") + joined(", ", lists) + text(f") WITH ORDINALITY AS p({names}, n)")


def _columns(view_type: ViewType, table: str) -> Sql:
    return text(", ".join(column(table, each) for each in view_type.columns))


def _table(build: str, view_type: ViewType) -> str:
    return f"{name(build)}.{name(view_type.view.name)}"
