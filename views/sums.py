"""From the declaration of an aggregate to its sums: pure SQL expressions, nothing executed.

One declaration serves three uses: the deltas of a batch, the fill of a new aggregate over data
that is there, and the sums at the end of a rebuild.
"""

from typing import Any

from sqlalchemy import FromClause, Select, Subquery, cast, func, or_, select, union_all

from views.model import Aggregate


def sums(aggregate: Aggregate, source: FromClause) -> Select[Any]:
    """The aggregate's rows over everything in `source`, one per group, in the table's columns."""
    return _grouped(aggregate, aggregate.contributions(source).subquery("contribution"))


def deltas(aggregate: Aggregate, *, old: FromClause, new: FromClause) -> Select[Any]:
    """What changes in each group when the rows of `old` become those of `new`, in key order.

    Groups in which nothing changes are left out, so a hot row is not locked for nothing. Key
    order, because two workers that lock groups in one order cannot deadlock.
    """
    gone, come = aggregate.contributions(old).subquery(), aggregate.contributions(new).subquery()
    taken = select(
        *(gone.c[name] for name in aggregate.key),
        *((-gone.c[name]).label(name) for name in aggregate.measures),
    )
    given = select(
        *(come.c[name] for name in aggregate.key), *(come.c[name] for name in aggregate.measures)
    )
    change = union_all(given, taken).subquery("contribution")
    statement = _grouped(aggregate, change)
    changed = [func.sum(change.c[name]) != 0 for name in aggregate.measures]
    return statement.having(or_(*changed)).order_by(*(change.c[name] for name in aggregate.key))


def _grouped(aggregate: Aggregate, contribution: Subquery) -> Select[Any]:
    keys = [contribution.c[name] for name in aggregate.key]
    totals = [
        cast(func.sum(contribution.c[name]), aggregate.table.c[name].type).label(name)
        for name in aggregate.measures
    ]
    return select(*keys, *totals).group_by(*keys)
