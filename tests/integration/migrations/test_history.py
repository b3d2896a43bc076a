"""The history of the schema: there and back leaves nothing, and it ends at what the code says."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import create_engine

from dev.postgres import Postgres
from migrations.builds import models
from tests.fixtures.databases import REPOSITORY, Database, alembic_config, migrate
from tests.integration.migrations.builds import add_build
from tests.integration.migrations.catalog import describe, describe_all, query, without_rights
from views.builds import INGEST


def test_upgrade_downgrade_upgrade_leaves_nothing_behind(empty_database: Database) -> None:
    dsn = empty_database.dsn
    empty = describe_all(dsn)
    migrate(dsn)
    first = describe_all(dsn)
    add_build(dsn, 2)
    command.downgrade(alembic_config(dsn), "base")
    assert describe_all(dsn) == empty
    migrate(dsn)
    assert describe_all(dsn) == first
    assert set(first) == {"build_1", "ingest", "public", "views"}


def test_each_step_of_the_history_goes_back_to_where_it_came_from(empty_database: Database) -> None:
    dsn = empty_database.dsn
    config = alembic_config(dsn)
    seen = [describe_all(dsn)]
    revisions = sorted(path.stem[:4] for path in _versions())
    for revision in revisions:
        command.upgrade(config, revision)
        seen.append(describe_all(dsn))
    for state in reversed(seen[:-1]):
        command.downgrade(config, "-1")
        assert describe_all(dsn) == state


def test_the_reader_role_goes_with_the_last_database_that_uses_it() -> None:
    server = Postgres()
    try:
        server.start()
        for name in ("one", "two"):
            migrate(server.create_database(name))
        command.downgrade(alembic_config(server.dsn("one")), "base")
        assert _has_reader(server.dsn("two"))
        command.downgrade(alembic_config(server.dsn("two")), "base")
        assert not _has_reader(server.dsn("two"))
    finally:
        server.close()


@pytest.mark.parametrize("build", ["build_1", "build_2"])
def test_models_and_migrated_schema_show_no_difference(database: Database, build: str) -> None:
    add_build(database.dsn, 2)
    engine = create_engine(database.dsn.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name in ("ingest", build),
                "compare_type": True,
                "compare_server_default": True,
                "version_table_schema": "public",
            },
        )
        differences = compare_metadata(context, models(build))
    engine.dispose()
    assert differences == []


def test_a_build_made_by_a_rebuild_equals_a_migrated_one(database: Database) -> None:
    add_build(database.dsn, 2)
    assert describe(database.dsn, "build_2") == describe(database.dsn, "build_1")


def test_the_schema_ingest_made_from_the_models_equals_the_migrated_one(
    database: Database, empty_database: Database
) -> None:
    engine = create_engine(empty_database.dsn.replace("postgresql:", "postgresql+psycopg:"))
    query(empty_database.dsn, "CREATE SCHEMA ingest")
    INGEST.create_all(engine)
    engine.dispose()
    made, migrated = (describe(d.dsn, "ingest") for d in (empty_database, database))
    assert without_rights(made) == without_rights(migrated)


def test_a_view_of_somebody_that_would_break_is_named(database: Database) -> None:
    query(database.dsn, "CREATE SCHEMA reports")
    query(database.dsn, "CREATE VIEW reports.mine AS SELECT order_id FROM views.orders")
    migrate(database.dsn)  # nothing to do, so nothing is dropped
    with pytest.raises(CommandError, match=r"(?s)reports\.mine.*Nothing was changed"):
        command.downgrade(alembic_config(database.dsn), "base")


def _versions() -> list[Path]:
    return list((REPOSITORY / "migrations" / "versions").glob("*.py"))


def _has_reader(dsn: str) -> bool:
    return bool(query(dsn, "SELECT 1 FROM pg_roles WHERE rolname = 'viewkeeper_reader'"))
