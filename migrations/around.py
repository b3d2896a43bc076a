"""What happens around the versions: views for people, rights of readers, aggregates that are new.

Stands apart from the versions because it follows the catalogue of the code that runs it, while a
version is history.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from migrations.builds import builds_of, live_build
from migrations.turn import sqlstate
from views import CATALOGUE
from views.ddl import CUSTOMER, PEOPLE, READER, fill, grant_reading, people_view, row_policies
from views.model import Aggregate, StreamView, View

Columns = Mapping[str, frozenset[str]]
"""Table -> its columns, for the tables that are there."""

_LOG: Final = logging.getLogger("alembic.builds")
_STILL_USED: Final = "2BP01"
_COLUMNS: Final = text(
    "SELECT c.relname, array_agg(a.attname::text) FROM pg_class c "
    "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
    "JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = :schema AND c.relkind = 'r' GROUP BY c.relname"
)
_GRANTS: Final = text(
    "SELECT c.relname, CASE acl.grantee WHEN 0 THEN 'PUBLIC' "
    "ELSE quote_ident(pg_get_userbyid(acl.grantee)) END, "
    "acl.privilege_type, acl.is_grantable "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) acl "
    "WHERE n.nspname = :schema AND c.relkind = 'v' AND acl.grantee <> c.relowner ORDER BY 1, 2, 3"
)
_KNOWS_CUSTOMERS: Final = text(
    "SELECT count(*) FROM pg_roles "
    f"WHERE rolname = '{CUSTOMER}' AND has_schema_privilege(oid, 'ingest', 'USAGE')"
)
_POLICIES: Final = text(
    "SELECT quote_ident(policyname), format('%I.%I', schemaname, tablename) FROM pg_policies "
    "WHERE schemaname = ANY (:builds) ORDER BY 1, 2"
)

_OF_TOPIC: Final = {
    "applied_dead_letters": (
        "topic_id IN (SELECT topic_id FROM {build}.positions WHERE topic = ANY (:topics))"
    ),
    "tombstones": "topic = ANY (:topics)",
    "positions": "topic = ANY (:topics)",
}
"""What a build keeps of a topic beside its view's rows: table and condition."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A right on a view for people that somebody gave by hand."""

    view: str
    grantee: str
    privilege: str
    grantable: bool

    def statement(self) -> str:
        """The right given again."""
        option = " WITH GRANT OPTION" if self.grantable else ""
        return f"GRANT {self.privilege} ON {PEOPLE}.{self.view} TO {self.grantee}{option}"


def drop_people_views(connection: Connection) -> list[Grant]:
    """Drop the views for people, so that versions can change what is below; the rights on them.

    CommandError: something of somebody else stands on one of them.
    """
    grants = [Grant(*row) for row in connection.execute(_GRANTS, {"schema": PEOPLE})]
    names = connection.execute(
        text("SELECT quote_ident(viewname) FROM pg_views WHERE schemaname = :schema ORDER BY 1"),
        {"schema": PEOPLE},
    )
    views = [f"{PEOPLE}.{name}" for name in names.scalars()]
    if views:
        _drop_views(connection, views)
    return grants


def drop_policies(connection: Connection) -> None:
    """Drop the policies of every build, so that versions can change what they stand on."""
    found = connection.execute(_POLICIES, {"builds": builds_of(connection)})
    for policy, table in found:
        connection.execute(text(f"DROP POLICY {policy} ON {table}"))
        connection.execute(text(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"))


def _drop_views(connection: Connection, views: list[str]) -> None:
    try:
        connection.execute(text(f"DROP VIEW {', '.join(views)}"))
    except DBAPIError as error:
        if sqlstate(error) != _STILL_USED:
            raise
        raise CommandError(
            f"{error.orig}\nDrop what stands on the views in schema {PEOPLE!r} before the "
            "migration and make it again after it. Nothing was changed."
        ) from error


def follow_catalogue(connection: Connection, grants: Iterable[Grant]) -> None:
    """Bring what stands on the tables in line with the catalogue, in every build."""
    builds = builds_of(connection)
    readers = (READER, CUSTOMER) if builds and connection.scalar(_KNOWS_CUSTOMERS) else (READER,)
    for build in builds:
        columns = _columns(connection, build)
        names = [view.name for view in CATALOGUE.views if view.name in columns]
        # Policies first, as in a rebuild: they lock the tables, and autovacuum out.
        for view in CATALOGUE.views:
            if CUSTOMER in readers and _is_whole(view, columns):
                _run(connection, row_policies(view, build))
        _run(connection, grant_reading(build, names, readers=readers))
        _forget_dropped(connection, build, columns)
        _make_known(connection, build, columns)
    live = live_build(connection)
    if live is not None:
        _make_people_views(connection, live, grants)


def _make_people_views(connection: Connection, live: str, grants: Iterable[Grant]) -> None:
    columns = _columns(connection, live)
    known = _known_in(connection, live)
    made = [v for v in CATALOGUE.views if v.name in columns and v.name in known]
    for view in made:
        _run(connection, people_view(view, build=live, present=columns[view.name]))
    names = {view.name for view in made}
    _run(connection, [grant.statement() for grant in grants if grant.view in names])


def _forget_dropped(connection: Connection, build: str, columns: Columns) -> None:
    """A view whose table a version dropped is not known, and its events count as not read.

    So it is filled if it comes back, and builds of an older release are not asked for them.
    """
    connection.execute(
        text(
            "DELETE FROM ingest.build_views v USING ingest.builds b "
            "WHERE b.number = v.number AND b.name = :build AND NOT v.view = ANY (:there)"
        ),
        {"build": build, "there": list(columns)},
    )
    topics = [v.stream.topic for v in CATALOGUE.stream_views if v.name not in columns]
    for table, of_topic in _OF_TOPIC.items():
        where = of_topic.format(build=build)
        connection.execute(text(f"DELETE FROM {build}.{table} WHERE {where}"), {"topics": topics})


def _make_known(connection: Connection, build: str, columns: Columns) -> None:
    """Fill the views that are new in a build and list them; fence whoever does not know them.

    A build that a rebuild is still filling is left to it: it lists its views when they are whole.
    So is a view whose events the build has passed, with what stands on it.
    """
    state = text("SELECT state FROM ingest.builds WHERE name = :build")
    if connection.scalar(state, {"build": build}) == "building":
        return
    known = before = _known_in(connection, build)
    for view in CATALOGUE.views:
        if view.name in known or not _is_whole(view, columns):
            continue
        if _fill(connection, view, build, known):
            known = known | {view.name}
        else:
            _LOG.warning(
                "%s is not filled in %s, which has passed its events before: workers of the old"
                " release go on there, those of this one want the build of `viewkeeper rebuild`",
                view.name,
                build,
            )
    for name in sorted(known - before):
        connection.execute(
            text(
                "INSERT INTO ingest.build_views (number, view) "
                "SELECT number, :view FROM ingest.builds WHERE name = :build"
            ),
            {"view": name, "build": build},
        )
    if known != before:
        # A worker of an older release would go on without the new view and leave it behind.
        connection.execute(text(f"UPDATE {build}.positions SET owner_epoch = owner_epoch + 1"))


def _fill(connection: Connection, view: View, build: str, known: Collection[str]) -> bool:
    """Make a new view complete in a build; False: only a rebuild can."""
    if isinstance(view, StreamView):
        return not _was_read(connection, view, build)
    if view.source.name in known:
        _run(connection, [f"DELETE FROM {build}.{view.name}", fill(view, build)])
    return view.source.name in known


def _was_read(connection: Connection, view: StreamView, build: str) -> bool:
    read = connection.scalar(
        text(f"SELECT sum(next_offset) FROM {build}.positions WHERE topic = :topic"),
        {"topic": view.stream.topic},
    )
    return bool(read)


def _is_whole(view: View, columns: Columns) -> bool:
    """Whether every table that a view is filled from and into is there as the catalogue has it."""
    tables = [view.table, view.source.table] if isinstance(view, Aggregate) else [view.table]
    return all({c.name for c in t.columns} <= columns.get(t.name, frozenset()) for t in tables)


def _known_in(connection: Connection, build: str) -> frozenset[str]:
    rows = connection.execute(
        text(
            "SELECT v.view FROM ingest.build_views v JOIN ingest.builds b USING (number) "
            "WHERE b.name = :build"
        ),
        {"build": build},
    )
    return frozenset(rows.scalars())


def _columns(connection: Connection, schema: str) -> Columns:
    rows = connection.execute(_COLUMNS, {"schema": schema})
    return {table: frozenset(columns) for table, columns in rows}


def _run(connection: Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        # Without parameters the driver leaves every % of the text alone.
        connection.execution_options(no_parameters=True).exec_driver_sql(statement)
