"""One migration at a time, and none that makes everybody wait."""

import os
import subprocess
import sys

import psycopg
import pytest
from alembic import command
from alembic.util import CommandError

from tests.fixtures.databases import REPOSITORY, Database, alembic_config, migrate
from tests.fixtures.waiting import eventually
from tests.integration.migrations.catalog import describe_all, query
from views.ddl import MIGRATION_LOCK

HELD = f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})".encode()


def alembic(dsn: str, *arguments: str) -> subprocess.Popen[str]:
    """Alembic's command line, as an operator runs it."""
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "VIEWKEEPER_DATABASE_URL": dsn},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def migrations_waiting(dsn: str) -> bool:
    """Whether a migration waits for its turn."""
    found = query(
        dsn,
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'viewkeeper migrate' AND wait_event = 'advisory'",
    )
    return bool(found)


def test_two_upgrades_at_once_migrate_once(empty_database: Database) -> None:
    runs = [alembic(empty_database.dsn, "upgrade", "head") for _ in range(2)]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert sum(output.count("Running upgrade  -> 0001") for output in outputs) == 1
    assert query(empty_database.dsn, "SELECT number, state FROM ingest.builds") == [(1, "live")]


def test_a_second_migration_waits_for_the_first_to_end(empty_database: Database) -> None:
    dsn = empty_database.dsn
    with psycopg.connect(dsn) as first:
        first.execute(HELD)
        second = alembic(dsn, "upgrade", "head")
        eventually(lambda: migrations_waiting(dsn), 30, "the second migration waits")
        assert "ingest" not in describe_all(dsn)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output


def test_a_second_migration_does_not_wait_for_ever(database: Database) -> None:
    with psycopg.connect(database.dsn) as first:
        first.execute(HELD)
        run = alembic(database.dsn, "-x", "wait_s=0.2", "upgrade", "head")
        output, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "another migration of this database is still running after 0.2 s" in output
    assert "Traceback" not in output


def test_a_lock_that_is_not_had_changes_nothing_and_says_so(database: Database) -> None:
    before = describe_all(database.dsn)
    config = alembic_config(database.dsn)
    config.attributes["lock_timeout_s"] = 0.2
    with psycopg.connect(database.dsn) as reader:
        reader.execute("SELECT * FROM build_1.orders")
        with pytest.raises(CommandError, match=r"(?s)within 0\.2 s.*Nothing was changed"):
            command.downgrade(config, "base")
    assert describe_all(database.dsn) == before


def test_a_migration_lets_a_batch_end_before_it_locks_anything(database: Database) -> None:
    query(database.dsn, "INSERT INTO build_1.positions (topic, partition) VALUES ('orders', 0)")
    config = alembic_config(database.dsn)
    config.attributes["lock_timeout_s"] = 0.2
    with psycopg.connect(database.dsn) as worker:
        worker.execute("UPDATE build_1.positions SET next_offset = 1")
        with pytest.raises(CommandError, match="positions"):
            command.upgrade(config, "head")
        worker.execute("INSERT INTO build_1.orders (order_id) VALUES ('in the batch')")
    migrate(database.dsn)
    assert query(database.dsn, "SELECT next_offset FROM build_1.positions") == [(1,)]


def test_a_login_without_the_rights_is_told_which(database: Database) -> None:
    run = alembic(database.api_dsn, "downgrade", "base")
    output, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "Migrations run as the owner of the database" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "is not an address"),
        ("mysql://somebody:hushhush@localhost/x", "must begin with postgresql://"),
        ("postgresql://somebody:hushhush@127.0.0.1:1/x", "the database of VIEWKEEPER_DATABASE_URL"),
    ],
)
def test_a_wrong_address_is_told_in_a_sentence_without_its_password(
    url: str, sentence: str
) -> None:
    run = alembic(url, "upgrade", "head")
    output, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert sentence in output
    assert "hushhush" not in output
    assert "Traceback" not in output
