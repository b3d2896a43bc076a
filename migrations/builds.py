"""`op.builds()`: the builds that a version applies to; and versions written that way.

Stands apart because alembic knows nothing of builds: here it learns one operation, and to write
`for build in op.builds():` where it would name the schema of one build.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from textwrap import indent
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import render_op_text
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import DropIndexOp, DropTableOp, MigrationScript, OpContainer
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text

from views.builds import INGEST
from views.ddl import build_name, tables_of

FIRST_BUILD = build_name(1)


@Operations.register_operation("builds")
class Builds(MigrateOperation):
    """Asks which builds exist."""

    @classmethod
    def builds(cls, operations: Operations) -> list[str]:
        """The schemas of all builds, oldest first."""
        return builds_of(operations.get_bind())


def builds_of(connection: Connection) -> list[str]:
    """The schemas of all builds, oldest first; none before the first migration."""
    if not connection.scalar(text("SELECT to_regclass('ingest.builds') IS NOT NULL")):
        return []
    rows = connection.execute(text("SELECT name FROM ingest.builds ORDER BY number"))
    return list(rows.scalars())


def live_build(connection: Connection) -> str | None:
    """The build that readers see; none before the first migration."""
    if not builds_of(connection):
        return None
    name: str | None = connection.scalar(
        text("SELECT name FROM ingest.builds WHERE state = 'live'")
    )
    return name


def models(build: str) -> MetaData:
    """What the code expects to find: the schema `ingest`, and the tables of a build."""
    expected = tables_of(build)
    for table in INGEST.sorted_tables:
        table.to_metadata(expected)
    return expected


class ForEachBuild(OpContainer):
    """Operations of a version that are meant for every build, found on one of them."""

    def __init__(self, ops: Sequence[MigrateOperation], *, found_on: str) -> None:
        super().__init__(ops)
        self.found_on = found_on


@renderers.dispatch_for(ForEachBuild)
def _render(context: AutogenContext, loop: ForEachBuild) -> str:
    body = "\n".join(render_op_text(context, op) for op in loop.ops)
    body = body.replace(f"schema={loop.found_on!r}", "schema=build")
    return "for build in op.builds():\n" + indent(body, "    ")


def write_for_all_builds(
    context: MigrationContext, _: Any, scripts: list[MigrationScript], /
) -> None:
    """Alembic's hook between comparing and writing: number the version, loop over the builds."""
    script = scripts[0]
    script.rev_id = _next_number(context, script)
    assert context.connection is not None
    build = live_build(context.connection) or FIRST_BUILD
    for container in (*script.upgrade_ops_list, *script.downgrade_ops_list):
        container.ops[:] = list(_looped(_needed(list(_flat(container.ops))), build))


def _flat(ops: Iterable[MigrateOperation]) -> Iterable[MigrateOperation]:
    for op in ops:
        if isinstance(op, OpContainer):
            yield from _flat(op.ops)
        else:
            yield op


def _needed(ops: Sequence[MigrateOperation]) -> list[MigrateOperation]:
    """Without the indexes of tables that are dropped: they go with their table."""
    dropped = {(op.schema, op.table_name) for op in ops if isinstance(op, DropTableOp)}
    return [
        op
        for op in ops
        if not (isinstance(op, DropIndexOp) and (op.schema, op.table_name) in dropped)
    ]


def _looped(ops: Iterable[MigrateOperation], build: str) -> Iterable[MigrateOperation]:
    for inside, group in groupby(ops, key=lambda op: getattr(op, "schema", None) == build):
        run = list(group)
        yield from [ForEachBuild(run, found_on=build)] if inside else run


def _next_number(context: MigrationContext, script: MigrationScript) -> str | None:
    directory = ScriptDirectory.from_config(context.config) if context.config else None
    if directory is None or (script.rev_id and script.rev_id.isdigit()):
        return script.rev_id
    head = directory.get_current_head()
    return f"{int(head or 0) + 1:04}"
