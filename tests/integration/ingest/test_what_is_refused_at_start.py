"""What a worker refuses to start with: exit code 1, one sentence with cause and remedy, no secret,
and nothing written. Wrong settings (exit code 2) are in `tests/unit/cli/test_usage.py`."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from cli.main import app
from dev.ports import LOOPBACK
from dev.postgres import Postgres
from tests.fixtures.databases import Database
from tests.fixtures.topics import alter_topic
from tests.integration.ingest.running import BUILD, query

pytestmark = pytest.mark.timeout(120, func_only=True)  # who is not refused goes on for ever


@pytest.fixture(scope="module")
def unsafe_server() -> Iterator[Postgres]:
    """A server that forgets on a crash what it acknowledged, with nothing in it."""
    server = Postgres(settings={"fsync": "off", "full_page_writes": "off"})
    server.start()
    yield server
    server.close()


def refused(dsn: str, kafka: str, registry: str, **environment: str) -> str:
    """The sentence that a worker is refused with, on one line."""
    settings = {
        "VIEWKEEPER_DATABASE_URL": dsn,
        "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": kafka,
        "VIEWKEEPER_SCHEMA_REGISTRY_URL": registry,
        "VIEWKEEPER_OPS_PORT": "0",
    }
    done = CliRunner().invoke(app, ["ingest"], env=settings | environment)
    assert done.exit_code == 1, done.output
    password = urlsplit(dsn).password
    assert password
    assert password not in done.output
    assert "Traceback" not in done.output
    return " ".join(done.stderr.split())


def _nothing_written(database: Database) -> None:
    assert query(database.dsn, f"SELECT topic FROM {BUILD}.positions") == []


def test_a_server_that_can_lose_what_it_acknowledged(
    unsafe_server: Postgres, kafka: str, registry: str
) -> None:
    said = refused(unsafe_server.dsn(), kafka, registry)
    assert "the database runs with fsync=off and full_page_writes=off" in said
    assert "Switch them on, or set VIEWKEEPER_ALLOW_UNSAFE_DATABASE=true" in said


def test_said_aloud_it_is_accepted_and_the_next_reason_is_told(
    unsafe_server: Postgres, kafka: str, registry: str
) -> None:
    accepted = {"VIEWKEEPER_ALLOW_UNSAFE_DATABASE": "true"}
    said = refused(unsafe_server.dsn(), kafka, registry, **accepted)
    assert "the database has no viewkeeper schema: run `alembic upgrade head` first" in said


def test_a_database_that_does_not_wait_for_its_disk(
    database: Database, kafka: str, registry: str
) -> None:
    query(database.dsn, f"ALTER DATABASE {database.name} SET synchronous_commit = off")
    said = refused(database.dsn, kafka, registry)
    assert "the database runs with synchronous_commit=off" in said
    assert "Switch it on" in said
    _nothing_written(database)


def test_a_database_that_was_never_migrated(
    empty_database: Database, kafka: str, registry: str
) -> None:
    assert "run `alembic upgrade head` first" in refused(empty_database.dsn, kafka, registry)


def test_a_database_that_lacks_a_view_of_this_code(
    database: Database, kafka: str, registry: str
) -> None:
    query(database.dsn, "DELETE FROM ingest.build_views WHERE view = 'daily_sales'")
    said = refused(database.dsn, kafka, registry)
    assert f"build {BUILD} does not hold daily_sales yet: run `alembic upgrade head`" in said
    _nothing_written(database)


def test_a_login_that_can_only_read(database: Database, kafka: str, registry: str) -> None:
    said = refused(database.api_dsn, kafka, registry)
    assert "the database refuses this login" in said
    assert "Use the owner's login in VIEWKEEPER_DATABASE_URL" in said


def test_a_password_that_is_wrong(database: Database, kafka: str, registry: str) -> None:
    password = urlsplit(database.dsn).password
    assert password
    said = refused(database.dsn.replace(password, "wr0ng-password"), kafka, registry)
    assert "the database refuses this login" in said
    assert "password authentication failed" in said


def test_a_compacted_topic_whose_key_is_not_its_identity(
    database: Database, kafka: str, registry: str
) -> None:
    alter_topic(kafka, "payments", cleanup_policy="compact")
    said = refused(database.dsn, kafka, registry)
    assert "topic payments has cleanup.policy=compact" in said
    assert "Set cleanup.policy=delete and retention.ms=-1" in said
    _nothing_written(database)


def test_an_ops_port_that_is_taken(database: Database, kafka: str, registry: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused(database.dsn, kafka, registry, VIEWKEEPER_OPS_PORT=port)
    assert f"the ops port {LOOPBACK}:{port} can't be opened" in said
    assert "set VIEWKEEPER_OPS_PORT to a free port" in said
