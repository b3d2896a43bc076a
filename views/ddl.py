"""The SQL that makes a build and what stands on it: pure text, nothing executed.

Stands apart because two rooms need it: migrations for every build that exists, a rebuild for the
one that it makes. Both give the same tables, names and rights.
"""

from collections.abc import Collection, Iterable
from typing import Final

from sqlalchemy import (
    ColumnElement,
    FromClause,
    MetaData,
    Table,
    and_,
    exists,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql import ClauseElement

from views.model import BUILD, Aggregate, StreamView, View
from views.positions import TABLE as POSITIONS
from views.sums import sums

READER: Final = "viewkeeper_reader"
"""The role that may read and nothing else. Logins of the API and of people are members of it."""
CUSTOMER: Final = "viewkeeper_customer"
"""The role that the API takes on for a customer: it reads the rows of one customer at a time."""
CLAIM: Final = "viewkeeper.customer_id"
"""The setting that says which customer; nobody's rows while it is not set."""
PEOPLE: Final = "views"
"""The schema of the SQL views for people."""
MIGRATION_LOCK: Final = 8_526_488_214_001
"""Advisory lock of a migration. Whoever makes a build holds it shared meanwhile."""
_DIALECT: Final = postgresql.dialect(  # type: ignore[no-untyped-call]
    paramstyle="named"  # the others double every % in the text
)


def build_name(number: int) -> str:
    """The schema of a build, for ever: `build_1` is never renamed."""
    return f"build_{number}"


def build_number(name: str) -> int:
    """The number of a build, by its schema."""
    return int(name.removeprefix("build_"))


def tables_of(build: str) -> MetaData:
    """The tables of a build, in its schema, with the names that the convention gives."""
    placed = MetaData(naming_convention=BUILD.naming_convention)
    for table in BUILD.sorted_tables:
        table.to_metadata(placed, schema=build)
    return placed


def table_of(view: View, build: str) -> Table:
    """A view's table in a build."""
    return view.table.to_metadata(MetaData(), schema=build)


def create_schema(build: str) -> list[str]:
    """The empty schema of a build, and the right to look into it."""
    return [f"CREATE SCHEMA {build}", f"GRANT USAGE ON SCHEMA {build} TO {READER}"]


def create_tables(build: str) -> list[str]:
    """Every table of a build, with its primary key."""
    return [
        str(CreateTable(table).compile(dialect=_DIALECT)).strip()
        for table in tables_of(build).sorted_tables
    ]


def create_indexes(build: str, *, of: str | None = None) -> list[str]:
    """Every other index of a build, or of one table, where it is not there yet: a rebuild makes
    them after the bulk of its load."""
    return [
        str(CreateIndex(index, if_not_exists=True).compile(dialect=_DIALECT))
        for table in tables_of(build).sorted_tables
        if of in (None, table.name)
        for index in sorted(table.indexes, key=lambda index: str(index.name))
    ]


def analyze(view: View, build: str) -> str:
    """Statistics of what a view is looked up by, all that a plan is chosen from. Those of the other
    columns take as long again; autovacuum sees to them in its time."""
    table = table_of(view, build)
    looked_up = {"visible", *table.primary_key.columns.keys()}
    for index in table.indexes:
        looked_up.update(index.columns.keys())
    columns = [column.name for column in table.columns if column.name in looked_up]
    return f"ANALYZE {build}.{view.name} ({', '.join(columns)})"


def grant_reading(
    build: str, names: Iterable[str], *, readers: Iterable[str] = (READER, CUSTOMER)
) -> list[str]:
    """What readers may see of a build: the named views and the positions."""
    roles = ", ".join(readers)
    tables = ", ".join(f"{build}.{name}" for name in (*names, POSITIONS.name))
    return [
        f"GRANT USAGE ON SCHEMA {build} TO {roles}",
        f"GRANT SELECT ON {tables} TO {roles}",
    ]


def row_policies(view: View, build: str) -> list[str]:
    """Row-level security of a view's table: readers see all of it, a customer the own rows.

    Made only where it is missing, because it locks out readers for a moment; the table's owner is
    exempt. The claim is read once per statement, so an index on the compared column serves.
    """
    table, claim = f"{build}.{view.name}", f"(SELECT current_setting('{CLAIM}', true))"
    policies = [f"CREATE POLICY readers ON {table} FOR SELECT TO {READER} USING (true)"]
    if view.customer_rows is not None:
        rows = view.customer_rows.format(build=build, customer=claim)
        policies.append(
            f"CREATE POLICY customers ON {table} FOR SELECT TO {CUSTOMER} USING ({rows})"
        )
    body = "; ".join([f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY", *policies])
    return [
        f"DO $$ BEGIN IF NOT (SELECT relrowsecurity FROM pg_class WHERE oid = '{table}'::regclass) "
        f"THEN {body}; END IF; END $$"
    ]


def people_view(view: View, *, build: str, present: Collection[str] | None = None) -> list[str]:
    """The SQL view for people on a view of the live build, hidden rows and their mark left out.

    It is simple, so PostgreSQL lets its owner update through it, and asks for the *caller's*
    rights on the table below, so row-level security holds. `present`: the columns that are there,
    where a table may be older than the catalogue.
    """
    names = [column.name for column in view.table.columns if column.name != "visible"]
    shown = [name for name in names if present is None or name in present]
    quote = _DIALECT.identifier_preparer.quote
    where = " WHERE visible" if "visible" in view.table.columns else ""
    return [
        f"CREATE OR REPLACE VIEW {PEOPLE}.{view.name} WITH (security_invoker = true) AS "
        f"SELECT {', '.join(map(quote, shown))} FROM {build}.{view.name}{where}",
        f"GRANT SELECT ON {PEOPLE}.{view.name} TO {READER}",
    ]


def fill(aggregate: Aggregate, build: str) -> str:
    """Every group of an aggregate from all rows of its source, into its empty table."""
    target, source = table_of(aggregate, build), table_of(aggregate.source, build)
    totals = sums(aggregate, source).subquery("total")
    columns = [totals.c[column.name] for column in target.columns]
    groups = select(*columns).where(totals.c[aggregate.members] != 0)
    return text_of(insert(target).from_select([c.name for c in target.columns], groups))


def roll_up(view: StreamView, build: str) -> list[str]:
    """What a view rolls up, from all rows of its child: for rows that were written without it.

    Keys that the child alone has get a row, as they do when events are applied one by one.
    """
    rollup = view.rollup
    if rollup is None:
        return []
    target, child = table_of(view, build), table_of(rollup.child, build)
    parent = target.alias("parent")

    def same(table: FromClause) -> ColumnElement[bool]:
        return and_(*(table.c[name] == child.c[name] for name in view.key))

    keys = [child.c[name] for name in view.key]
    lacking = select(*keys).distinct().where(~exists().where(same(target)))
    sums = rollup.columns(parent.c, child.c)
    columns = (value.label(name) for name, value in sums.items())
    changed = (parent.c[name].is_distinct_from(value) for name, value in sums.items())
    # Grouped by the parent's primary key, so that its other columns can be compared right here.
    parents = [parent.c[name] for name in view.key]
    found = select(*parents, *columns).join_from(child, parent, same(parent)).group_by(*parents)
    right = found.having(or_(*changed)).subquery("right")
    return [
        text_of(insert(target).from_select(list(view.key), lacking)),
        text_of(
            update(target)
            .values({name: right.c[name] for name in sums})
            .where(*(target.c[name] == right.c[name] for name in view.key))
        ),
    ]


def text_of(statement: ClauseElement) -> str:
    """A statement as text with its values in it. To be executed without parameters."""
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True})
    return str(compiled)
