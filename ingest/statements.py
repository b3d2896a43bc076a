"""Pure: the SQL of a batch, made once per build from the catalogue's declarations.

No view is named here. A view that rolls up a child (orders over payments) and the child's rows are
changed under the lock of the parent's row: that row is where two workers meet that hold the two
streams of one order. The order of the statements is that of docs/architecture.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from sqlalchemy import (
    Column,
    DefaultClause,
    FromClause,
    Numeric,
    TableClause,
    and_,
    column,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql import visitors

from ingest.form import EventForm
from views.ddl import table_of, text_of
from views.model import Aggregate, Catalogue, StreamView
from views.sums import deltas

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped

SOURCE_COLUMNS = (
    ("source_topic", "text"),
    ("source_partition", "int4"),
    ("source_offset", "int8"),
    ("source_schema_id", "int4"),
    ("source_recorded_at", "int8"),
)
"""Where a row came from, with staged types; the timestamp is staged in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewStatements:
    """The SQL of one stream view. Statements that a view has no need of are None.

    `copy` takes rows into the temporary table, `stage` a few of them as a JSON list;
    `make` makes the rows of a meeting place exist, whole, and notes the ones it made; `meet` locks
    the others in key order and notes their old images; `ask` answers the few rows that are not
    older than the batch; `insert` (of a child) and `update` (of the meeting place) write what is
    newer, and `update` recomputes what is rolled up from the child; `bury` and `hide` follow where
    the batch has tombstones.
    """

    view: StreamView
    staged: str
    staged_columns: tuple[str, ...]
    staged_kinds: tuple[str, ...]
    copy: str
    stage: str
    make: str | None
    meet: str | None
    ask: str
    insert: str | None
    update: str | None
    bury: str | None
    hide: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateStatements:
    """The SQL of one aggregate: add the deltas of the batch, drop the groups that became empty."""

    aggregate: Aggregate
    add: str
    drop: str


@dataclass(frozen=True, slots=True)
class Statements:
    """All SQL of a batch in one build.

    `temporary` makes the connection's temporary tables; `delete` and `truncate` empty them. `fence`
    takes a JSON list of positions, moves those that are still ours, and returns which they were.
    """

    build: str
    temporary: tuple[str, ...]
    delete: str
    truncate: str
    parents: tuple[ViewStatements, ...]
    children: tuple[ViewStatements, ...]
    aggregates: tuple[AggregateStatements, ...]
    fence: str
    count: str

    @property
    def views(self) -> tuple[ViewStatements, ...]:
        """Meeting places first."""
        return self.parents + self.children


def statements(build: str, catalogue: Catalogue, forms: Mapping[str, EventForm]) -> Statements:
    """The SQL of a batch for one build. `forms` is per topic."""
    maker = _Maker(build, catalogue, forms)
    children = catalogue.children()
    parents = [view for view in catalogue.stream_views if view.name not in children]
    below = [view for view in catalogue.stream_views if view.name in children]
    return Statements(
        build=build,
        temporary=tuple(maker.temporary()),
        delete=_delete_all(maker.temporary_names()),
        truncate=f"TRUNCATE {', '.join(maker.temporary_names())}",
        parents=tuple(maker.parent(view) for view in parents),
        children=tuple(maker.child(view) for view in below),
        aggregates=tuple(maker.aggregate(aggregate) for aggregate in catalogue.aggregates),
        fence=_fence(build),
        count=(
            f"UPDATE {build}.positions SET applied = applied + %(applied)s,"
            " superseded = superseded + %(superseded)s, duplicates = duplicates + %(duplicates)s,"
            " tombstones = tombstones + %(tombstones)s, dead = dead + %(dead)s"
            " WHERE topic = %(topic)s AND partition = %(partition)s"
        ),
    )


_GIVEN = (
    'topic text, partition int4, start int8, "end" int8, epoch int8, last_event_ms int8,'
    " leader_epoch int4, complete_as_of timestamptz, stopped_reason text, applied int8,"
    " superseded int8, duplicates int8, tombstones int8, dead int8"
)


def _fence(build: str) -> str:
    """One statement for all positions. The rows that it hits are locked one after the other, in
    order, or two owners of the same partitions could wait for each other; what the update asks
    again is of the row as it is once it is locked."""
    own = f"{build}.positions"
    return (
        f"WITH given AS MATERIALIZED (SELECT * FROM json_to_recordset(%s::json) AS g ({_GIVEN})),"
        f" held AS MATERIALIZED (SELECT p.topic, p.partition FROM {own} p JOIN given g"
        f" USING (topic, partition) WHERE {_is_ours('p')}"
        " ORDER BY p.topic, p.partition FOR UPDATE OF p)"
        f' UPDATE {own} SET next_offset = g."end",'
        " leader_epoch = greatest(positions.leader_epoch, g.leader_epoch),"
        " last_event_at = coalesce(to_timestamp(g.last_event_ms / 1000.0), last_event_at),"
        " complete_as_of = greatest(positions.complete_as_of, g.complete_as_of),"
        " stopped_reason = coalesce(g.stopped_reason, positions.stopped_reason),"
        " applied = positions.applied + g.applied,"
        " superseded = positions.superseded + g.superseded,"
        " duplicates = positions.duplicates + g.duplicates,"
        " tombstones = positions.tombstones + g.tombstones, dead = positions.dead + g.dead"
        " FROM held JOIN given g USING (topic, partition)"
        " WHERE positions.topic = held.topic AND positions.partition = held.partition"
        f" AND {_is_ours('positions')}"
        " RETURNING positions.topic, positions.partition"
    )


def _is_ours(row: str) -> str:
    return f"{row}.next_offset = g.start AND {row}.owner_epoch = g.epoch"


def _delete_all(tables: list[str]) -> str:
    """One statement that empties them all."""
    gone = ", ".join(f"of_{name} AS (DELETE FROM {name})" for name in tables)
    return f"WITH {gone} SELECT"


def quoted(name: str) -> str:
    """A name as SQL takes it."""
    return _DIALECT.identifier_preparer.quote(name)


def hide_removed(build: str, view: StreamView) -> list[str]:
    """What tombstones hide, from all of them: for rows that were written without a look at them.

    Keys that have nothing but a tombstone get a row, as they do when events are applied one by one.
    """
    if not view.hides:
        return []
    removed = f"SELECT key FROM {build}.tombstones WHERE topic = '{view.stream.topic}'"
    keys = _names(view.key)
    return [
        f"INSERT INTO {build}.{quoted(view.name)} ({keys}) {removed} GROUP BY key"
        f" ON CONFLICT ({keys}) DO NOTHING",
        _hide(build, view, removed),
    ]


def _hide(build: str, view: StreamView, keys: str) -> str:
    key, buried = quoted(view.key[0]), _is_buried(build, view, "o", "")
    return (
        f"UPDATE {build}.{quoted(view.name)} o SET visible = NOT {buried}"
        f" WHERE o.{key} IN ({keys}) AND o.version > 0 AND o.visible = {buried}"
    )


def _is_buried(build: str, view: StreamView, of: str, timestamp: str, row: str = "o") -> str:
    """Whether a tombstone hides the event at `of`: a later one of its own partition, or one of
    another partition whose Kafka timestamp is not earlier."""
    recorded = f"{of}.source_recorded_at"
    if timestamp:
        recorded = f"{timestamp}({recorded} / 1000.0)"
    return (
        f"EXISTS (SELECT FROM {build}.tombstones b WHERE b.topic = '{view.stream.topic}'"
        f" AND b.key = {row}.{quoted(view.key[0])} AND CASE"
        f' WHEN b.partition = {of}.source_partition THEN b."offset" > {of}.source_offset'
        f" ELSE b.recorded_at >= {recorded} END)"
    )


def _names(columns: tuple[str, ...] | list[str], of: str = "") -> str:
    return ", ".join(f"{of}{quoted(name)}" for name in columns)


class _Maker:
    def __init__(self, build: str, catalogue: Catalogue, forms: Mapping[str, EventForm]) -> None:
        self._build = build
        self._catalogue = catalogue
        self._forms = forms

    # Temporary tables: what is staged, and what was met under lock.

    def temporary(self) -> list[str]:
        # Not ON COMMIT DELETE ROWS: that truncates every one of them at every commit, and takes
        # longer than a commit of a few rows.
        return [
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({columns})"
            for name, columns in self._temporary().items()
        ]

    def temporary_names(self) -> list[str]:
        return list(self._temporary())

    def _temporary(self) -> dict[str, str]:
        made = {f"staged_{v.name}": self._staged_columns(v) for v in self._catalogue.stream_views}
        for view in self._catalogue.stream_views:
            if self._meets(view):
                made[f"met_{view.name}"] = self._met_columns(view)
            if view.hides:
                made[f"buried_{view.name}"] = (
                    'key text COLLATE "C", partition int4, "offset" int8, recorded_ms int8'
                )
        return made

    def _staged_columns(self, view: StreamView) -> str:
        form = self._form(view)
        collations = {name: ' COLLATE "C"' for name in view.key if self._is_text(view, name)}
        columns = [
            f"{quoted(name)} {kind}{collations.get(name, '')}"
            for name, kind in zip(form.columns, form.kinds, strict=True)
        ]
        columns += [f"{name} {kind}" for name, kind in SOURCE_COLUMNS]
        return ", ".join([*columns, "lowest_version int8"])

    def _met_columns(self, view: StreamView) -> str:
        kept = (*view.key, *self._image(view))
        columns = ", ".join(f"{quoted(n)} {self._kind(view, n)}" for n in kept)
        return f"made bool NOT NULL, {columns}"

    def _is_text(self, view: StreamView, name: str) -> bool:
        return getattr(view.table.c[name].type, "collation", None) is not None

    def _kind(self, view: StreamView, name: str) -> str:
        return str(view.table.c[name].type.compile(dialect=_DIALECT))

    def _meets(self, view: StreamView) -> bool:
        """Whether rows are noted under lock: every meeting place, and what is summed."""
        return self._meets_all(view) or bool(self._catalogue.aggregates_of(view))

    def _image(self, view: StreamView) -> list[str]:
        """The columns of a row that some aggregate reads, the key left out."""
        read: set[str] = set()
        for aggregate in self._catalogue.aggregates_of(view):
            for element in visitors.iterate(aggregate.contributions(view.table)):
                if isinstance(element, Column) and element.table is view.table:
                    read.add(element.name)
        return [c.name for c in view.table.columns if c.name in read - set(view.key)]

    def _form(self, view: StreamView) -> EventForm:
        return self._forms[view.stream.topic]

    # The statements of a view.

    def parent(self, view: StreamView) -> ViewStatements:
        if _is_deferred(view):
            return self._in_bulk(view)
        return self._view(
            view,
            make=self._make(view),
            meet=self._meet(view),
            insert=None,
            update=self._update_rolled_up(view) if view.rollup else self._update(view),
            bury=self._bury(view) if view.hides else None,
            hide=self._hide(view) if view.hides else None,
        )

    def _in_bulk(self, view: StreamView) -> ViewStatements:
        """Without a look at other rows: nobody reads or sums yet, and whoever fills the build rolls
        up (`views.ddl.roll_up`) and hides (`hide_removed`) when all is in."""
        return self._view(
            view,
            make=None,
            meet=None,
            insert=None,
            update=self._insert(view),
            bury=self._bury(view) if view.hides else None,
            hide=None,
        )

    def child(self, view: StreamView) -> ViewStatements:
        return self._view(
            view,
            make=None,
            meet=self._old_images(view) if self._meets(view) else None,
            insert=self._insert(view),
            update=None,
            bury=None,
            hide=None,
        )

    def _view(self, view: StreamView, **parts: str | None) -> ViewStatements:
        form = self._form(view)
        columns = [*form.columns, *(name for name, _ in SOURCE_COLUMNS), "lowest_version"]
        kinds = (*form.kinds, *(kind for _, kind in SOURCE_COLUMNS), "int8")
        staged = f"staged_{view.name}"
        typed = ", ".join(f"{quoted(n)} {k}" for n, k in zip(columns, kinds, strict=True))
        return ViewStatements(
            view=view,
            staged=staged,
            staged_columns=tuple(map(str, columns)),  # plain texts, whatever SQLAlchemy keeps
            staged_kinds=kinds,
            copy=f"COPY {staged} ({_names(columns)}) FROM STDIN (FORMAT BINARY)",
            stage=(
                f"INSERT INTO {staged} ({_names(columns)}) SELECT {_names(columns)}"
                f" FROM json_to_recordset(%s::json) AS r ({typed})"
            ),
            ask=self._ask(view),
            **parts,
        )

    def _table(self, of: StreamView | Aggregate) -> str:
        return f"{self._build}.{quoted(of.name)}"

    def _on(self, of: StreamView | Aggregate, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{quoted(k)} = {right}.{quoted(k)}" for k in of.key)

    def _written(self, view: StreamView) -> list[str]:
        """The columns that an event sets."""
        return [*self._form(view).columns, *(name for name, _ in SOURCE_COLUMNS)]

    def _values(self, view: StreamView, of: str) -> list[str]:
        """For each of those columns, its value from the staged row."""
        form = self._form(view)
        values = [
            self._from_staged(view, name, kind, of)
            for name, kind in zip(form.columns, form.kinds, strict=True)
        ]
        values += [f"{of}.{name}" for name, _ in SOURCE_COLUMNS[:-1]]
        return [*values, f"to_timestamp({of}.source_recorded_at / 1000.0)"]

    def _from_staged(self, view: StreamView, name: str, kind: str, of: str) -> str:
        target, staged = view.table.c[name].type, f"{of}.{quoted(name)}"
        if isinstance(target, Numeric) and kind == "int8":
            return f"{staged} * {10 ** -(target.scale or 0):.{target.scale}f}"
        if getattr(target, "timezone", False):
            # Whole seconds and the rest apart: exact in double precision over all years.
            return (
                f"to_timestamp({staged} / 1000000) + {staged} % 1000000 * interval '1 microsecond'"
            )
        return f"{staged}::json" if self._kind(view, name) in ("JSON", "JSONB") else staged

    def _to_staged(self, view: StreamView, name: str, of: str) -> str:
        target, stored = view.table.c[name].type, f"{of}.{quoted(name)}"
        if isinstance(target, Numeric):
            return f"({stored} * {10 ** (target.scale or 0)})::int8"
        if getattr(target, "timezone", False):
            return f"(extract(epoch FROM {stored}) * 1000000)::int8"
        return f"{stored}::text" if self._kind(view, name) in ("JSON", "JSONB") else stored

    def _touched(self, view: StreamView) -> str:
        """The keys that a batch touches: by an event, by a child's event, by a tombstone."""
        keys = _names(view.key)
        parts = [f"SELECT {keys} FROM staged_{view.name}"]
        if view.rollup:
            parts.append(f"SELECT {keys} FROM staged_{view.rollup.child.name}")
        if view.hides:
            parts.append(f"SELECT key FROM buried_{view.name}")
        return " UNION ".join(parts) if len(parts) > 1 else parts[0]

    def _make(self, view: StreamView) -> str:
        """Rows that are not there: whole where the batch has their event, else a placeholder.

        A row exists for every key that a tombstone was ever seen for, so a row that is made here
        is hidden by none that is stored; those of this batch follow in `hide`.
        """
        written = self._written(view)
        values = self._values(view, "s")
        at_version = written.index("version")
        values[at_version] = (
            "coalesce(s.version, 0)" if self._has_placeholders(view) else "s.version"
        )
        for at, name in enumerate(view.key):
            values[at] = f"t.{quoted(name)}"
        if view.hides:
            written, values = [*written, "visible"], [*values, "s.version IS NOT NULL"]
        rolled_up = ""
        if view.rollup:
            names, sums = self._staged_sums(view)
            rolled_up = f" LEFT JOIN ({sums}) r ON {self._on(view, 'r', 't')}"
            written = [*written, *names]
            values += [f"coalesce(r.{quoted(n)}, {self._default(view, n)})" for n in names]
        return (
            f"WITH made AS (INSERT INTO {self._table(view)} ({_names(written)})"
            f" SELECT {', '.join(values)} FROM ({self._touched(view)}) t"
            f" LEFT JOIN staged_{view.name} s ON {self._on(view, 's', 't')}{rolled_up}"
            f" WHERE NOT EXISTS {self._found(view, by='t')}"
            f" ORDER BY {_names(view.key, 't.')} ON CONFLICT ({_names(view.key)}) DO NOTHING"
            f" RETURNING {_names(view.key)})"
            f" INSERT INTO met_{view.name} (made, {_names(view.key)})"
            f" SELECT true, {_names(view.key)} FROM made"
        )

    def _staged_sums(self, view: StreamView) -> tuple[list[str], str]:
        """What is rolled up for rows that are made now: all rows of their child are staged."""
        assert view.rollup is not None
        parent, child = self._staged_rows(view, "p"), self._staged_rows(view.rollup.child, "c")
        sums = view.rollup.columns(parent.c, child.c)
        keys = [child.c[name] for name in view.key]
        rows = child.outerjoin(parent, _same(view.key, parent, child))
        columns = (value.label(name) for name, value in sums.items())
        return list(sums), text_of(select(*keys, *columns).select_from(rows).group_by(*keys))

    def _stored_sums(self, view: StreamView, row: Mapping[str, str]) -> tuple[list[str], str]:
        """What is rolled up for a row of these values, as SQL, from its child's rows."""
        assert view.rollup is not None
        child = table_of(view.rollup.child, self._build).alias("c")
        # Expressions, not a table: the statement around has one that this must not name.
        parent = {n: literal_column(f"({v})", view.table.c[n].type) for n, v in row.items()}
        sums = view.rollup.columns(SimpleNamespace(**parent), child.c)
        columns = (value.label(name) for name, value in sums.items())
        same = (parent[name] == child.c[name] for name in view.key)
        return list(sums), text_of(select(*columns).select_from(child).where(and_(*same)))

    def _staged_rows(self, view: StreamView, alias: str) -> FromClause:
        """The staged rows of a view, as its table has them."""
        pairs = zip(self._written(view), self._values(view, "s"), strict=True)
        values = ", ".join(f"{value} AS {quoted(name)}" for name, value in pairs)
        rows = text(f"SELECT {values} FROM staged_{view.name} s")
        return rows.columns(
            *(column(name, view.table.c[name].type) for name in self._written(view))
        ).subquery(alias)

    def _default(self, view: StreamView, name: str) -> str:
        default = view.table.c[name].server_default
        assert isinstance(default, DefaultClause), f"{view.name}.{name} needs a server default"
        return str(default.arg)

    def _has_placeholders(self, view: StreamView) -> bool:
        return view.rollup is not None or view.hides

    def _meet(self, view: StreamView) -> str:
        """Each row is locked before the next one is, in the order of their keys."""
        kept = [*view.key, *self._image(view)]
        new = f"NOT EXISTS (SELECT FROM met_{view.name} m WHERE {self._on(view, 'm', 't')})"
        return (
            f"INSERT INTO met_{view.name} (made, {_names(kept)})"
            f" SELECT false, {_names(kept, 'o.')} FROM (SELECT * FROM ({self._touched(view)}) t"
            f" WHERE {new} ORDER BY {_names(view.key)}) t"
            f" CROSS JOIN LATERAL {self._found(view, by='t', locked=True)} o"
        )

    def _old_images(self, view: StreamView) -> str:
        kept = [*view.key, *self._image(view)]
        return (
            f"INSERT INTO met_{view.name} (made, {_names(kept)})"
            f" SELECT false, {_names(kept, 'o.')} FROM staged_{view.name} s"
            f" CROSS JOIN LATERAL {self._found(view, by='s')} o"
        )

    def _ask(self, view: StreamView) -> str:
        values = ", ".join(self._to_staged(view, n, "o") for n in self._form(view).columns)
        asked, by = f"staged_{view.name} s", "s"
        if self._meets_all(view):  # of those that were there before, which are known by now
            asked += f" JOIN met_{view.name} m ON {self._on(view, 'm', 's')} AND NOT m.made"
            by = "m"
        return (
            f"SELECT {values} FROM {asked} CROSS JOIN LATERAL {self._found(view, by=by)} o"
            " WHERE o.version >= s.lowest_version"
        )

    def _found(self, of: StreamView | Aggregate, *, by: str, locked: bool = False) -> str:
        """The row with the key of another, each looked up in the index: guesses about temporary
        tables must not lead the planner to read all rows instead."""
        apart = "FOR UPDATE" if locked else "OFFSET 0"  # either keeps it a query of its own
        same = self._on(of, "found", by)
        return f"(SELECT found.*, found.ctid FROM {self._table(of)} found WHERE {same} {apart})"

    def _update(self, view: StreamView) -> str:
        written = self._written(view)
        pairs = list(zip(written, self._values(view, "s"), strict=True))
        changed = [f"{quoted(n)} = {v}" for n, v in pairs if n not in view.key]
        if view.hides:
            changed.append(f"visible = NOT {_is_buried(self._build, view, 's', 'to_timestamp')}")
        return (
            f"UPDATE {self._table(view)} o SET {', '.join(changed)} FROM staged_{view.name} s"
            f" WHERE {self._on(view, 'o', 's')} AND o.version < s.version"
        )

    def _update_rolled_up(self, view: StreamView) -> str:
        """One new version of each row that an event or a child's event changes, not two."""
        assert view.rollup is not None
        written = self._written(view)
        values = dict(zip(written, self._values(view, "s"), strict=True))
        if view.hides:
            values["visible"] = f"NOT {_is_buried(self._build, view, 's', 'to_timestamp', row='x')}"
        newer = f"s.{quoted(view.key[0])} IS NOT NULL"
        current = ", ".join(
            f"x.{quoted(name)}"
            if name in view.key
            else f"CASE WHEN {newer} THEN {value} ELSE x.{quoted(name)} END AS {quoted(name)}"
            for name, value in values.items()
        )
        sums, summed = self._stored_sums(view, {n: f"n.{quoted(n)}" for n in values})
        changed = [f"{quoted(n)} = n.{quoted(n)}" for n in values if n not in view.key]
        changed += [f"{quoted(n)} = r.{quoted(n)}" for n in sums]
        return (
            f"UPDATE {self._table(view)} o SET {', '.join(changed)} FROM"
            f" (SELECT {newer} AS newer, x.ctid, {current} FROM met_{view.name} m"
            f" CROSS JOIN LATERAL {self._found(view, by='m')} x"
            f" LEFT JOIN staged_{view.name} s ON {self._on(view, 's', 'm')}"
            f" AND s.version > x.version WHERE NOT m.made) n"
            f" CROSS JOIN LATERAL ({summed}) r WHERE o.ctid = n.ctid AND"
            f" (n.newer OR ({_names(sums, 'o.')}) IS DISTINCT FROM ({_names(sums, 'r.')}))"
        )

    def _bury(self, view: StreamView) -> str:
        return (
            f"INSERT INTO {self._build}.tombstones AS b"
            f' (topic, key, partition, "offset", recorded_at)'
            f" SELECT '{view.stream.topic}', key, partition, \"offset\","
            f" to_timestamp(recorded_ms / 1000.0) FROM buried_{view.name} ORDER BY key, partition"
            ' ON CONFLICT (topic, key, partition) DO UPDATE SET "offset" = excluded."offset",'
            ' recorded_at = excluded.recorded_at WHERE b."offset" < excluded."offset"'
        )

    def _hide(self, view: StreamView) -> str:
        return _hide(self._build, view, f"SELECT key FROM buried_{view.name}")

    def _insert(self, view: StreamView) -> str:
        """Rows that are new or newer, with what their child's rows add up to by now; whatever
        tombstones say, they are shown."""
        written, values = self._written(view), self._values(view, "s")
        rows = f"staged_{view.name} s"
        if view.rollup:
            names, sums = self._stored_sums(view, dict(zip(written, values, strict=True)))
            rows += f" CROSS JOIN LATERAL ({sums}) r"
            written, values = [*written, *names], [*values, *(f"r.{quoted(n)}" for n in names)]
        if view.hides:
            written, values = [*written, "visible"], [*values, "true"]
        changed = ", ".join(
            f"{quoted(name)} = excluded.{quoted(name)}" for name in written if name not in view.key
        )
        return (
            f"INSERT INTO {self._table(view)} AS o ({_names(written)})"
            f" SELECT {', '.join(values)} FROM {rows}"
            f" ORDER BY {_names(view.key, 's.')} ON CONFLICT ({_names(view.key)}) DO UPDATE"
            f" SET {changed} WHERE o.version < excluded.version"
        )

    # Aggregates.

    def aggregate(self, aggregate: Aggregate) -> AggregateStatements:
        view = aggregate.source
        met, current = self._met_rows(view), self._current_rows(view)
        change = text_of(deltas(aggregate, old=met, new=current))
        name = self._table(aggregate)
        columns = [*aggregate.key, *aggregate.measures]
        summed = ", ".join(
            f"{quoted(m)} = a.{quoted(m)} + excluded.{quoted(m)}" for m in aggregate.measures
        )
        left = aggregate.contributions(met).subquery("left_by")
        groups = text_of(select(*(left.c[name] for name in aggregate.key)).distinct())
        empty = f"{quoted(aggregate.members)} = 0"
        return AggregateStatements(
            aggregate=aggregate,
            add=(
                f"INSERT INTO {name} AS a ({_names(columns)}) {change}"
                f" ON CONFLICT ({_names(aggregate.key)}) DO UPDATE SET {summed}"
            ),
            # Only a group that `add` has just changed, and locked, can be empty: it stays in place.
            drop=(
                f"DELETE FROM {name} a USING ({groups}) left_by"
                f" CROSS JOIN LATERAL {self._found(aggregate, by='left_by')} gone"
                f" WHERE gone.{empty} AND a.ctid = gone.ctid AND a.{empty}"
            ),
        )

    def _met_rows(self, view: StreamView) -> FromClause:
        names = [*view.key, *self._image(view)]
        met: TableClause = table(
            f"met_{view.name}",
            *(column(name, view.table.c[name].type) for name in names),
            column("made"),
        )
        rows = select(*(met.c[name] for name in names)).where(~met.c.made)
        return rows.subquery("old")

    def _current_rows(self, view: StreamView) -> FromClause:
        names = [*view.key, *self._image(view)]
        touched = f"met_{view.name}" if self._meets_all(view) else f"staged_{view.name}"
        rows = text(
            f"SELECT {_names(names, 'r.')} FROM {touched} t"
            f" CROSS JOIN LATERAL {self._found(view, by='t')} r"
        )
        return rows.columns(*(column(n, view.table.c[n].type) for n in names)).subquery("new")

    def _meets_all(self, view: StreamView) -> bool:
        return view.name not in self._catalogue.children() and not _is_deferred(view)


def _is_deferred(view: StreamView) -> bool:
    return view.rollup is not None and view.rollup.deferred


def _same(key: tuple[str, ...], left: FromClause, right: FromClause) -> Any:
    first, *rest = (left.c[name] == right.c[name] for name in key)
    for condition in rest:
        first = first & condition
    return first
