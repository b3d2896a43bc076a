"""The database away: a clear answer in less than two seconds, and back by itself."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from dev.postgres import Postgres
from tests.fixtures.databases import Database, DatabaseServer
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import Api, settings

QUERY = "{ position { build } }"


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """A server that these tests may stop."""
    server = Postgres()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def api_dsn(own_server: Postgres) -> str:
    """A migrated database on it."""
    databases = DatabaseServer(own_server)
    return databases.create(template=databases.template.name).api_dsn


def test_a_database_away_is_said_quickly_and_its_return_is_noticed(
    own_server: Postgres, api_dsn: str
) -> None:
    with TestClient(create_app(settings(api_dsn))) as client:
        api = Api(client)
        api.data(QUERY)
        own_server.stop()
        for _ in range(3):
            began_at = time.monotonic()
            response = client.post("/graphql", json={"query": QUERY})
            assert time.monotonic() - began_at < 2
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            (error,) = response.json()["errors"]
            assert error["extensions"]["code"] == "UNAVAILABLE"
            assert "127.0.0.1" not in response.text
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        own_server.start()
        eventually(lambda: "data" in api.answer(QUERY), 5, "answers after the database's return")
        assert client.get("/readyz").status_code == 200


def test_connections_that_died_unnoticed_cost_no_answer(own_server: Postgres, api_dsn: str) -> None:
    with TestClient(create_app(settings(api_dsn))) as client:
        api = Api(client)
        api.data(QUERY)
        own_server.restart("immediate")
        for _ in range(10):
            api.data(QUERY)


def test_it_starts_before_its_database_does(own_server: Postgres, api_dsn: str) -> None:
    own_server.stop()
    try:
        with TestClient(create_app(settings(api_dsn))) as client:
            assert Api(client).code(QUERY) == "UNAVAILABLE"
            own_server.start()
            eventually(lambda: "data" in Api(client).answer(QUERY), 5, "answers at last")
    finally:
        if not own_server.answers():
            own_server.start()


def test_a_frozen_database_is_said_quickly_and_its_thaw_is_noticed(
    own_server: Postgres, api_dsn: str
) -> None:
    # One connection, so that all that can answer are there to be frozen.
    with TestClient(create_app(settings(api_dsn, api_connections=1))) as client:
        api = Api(client)
        api.data(QUERY)
        with psycopg.connect(own_server.dsn()) as connection:
            found = connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
        pids = [own_server.process.pid, *(pid for (pid,) in found)]
        freeze(pids, signal.SIGSTOP)
        try:
            for _ in range(3):
                began_at = time.monotonic()
                assert api.code(QUERY) == "UNAVAILABLE"
                assert time.monotonic() - began_at < 2
        finally:
            freeze(pids, signal.SIGCONT)
        eventually(lambda: "data" in api.answer(QUERY), 5, "answers after the thaw")


def test_a_slow_statement_is_waited_for_while_the_server_lives(database: Database) -> None:
    given = settings(database.api_dsn, api_connections=1, api_acquire_timeout_s=0.2)
    with (
        TestClient(create_app(given)) as client,
        psycopg.connect(database.dsn, autocommit=True) as watching,
        psycopg.connect(database.dsn) as locking,
        ThreadPoolExecutor(1) as thread,
    ):
        api = Api(client)
        api.data(QUERY)

        def sessions() -> int:
            statement = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
            ((count,),) = watching.execute(statement).fetchall()
            return int(count)

        before = sessions()
        locking.execute("LOCK TABLE build_1.orders IN ACCESS EXCLUSIVE MODE")
        answer = thread.submit(api.data, "{ orders { totalCount } }")
        eventually(lambda: sessions() > before, 20, "asks by another session whether it lives")
        assert not answer.done()
        locking.rollback()
        assert answer.result(20) == {"orders": {"totalCount": 0}}


def freeze(pids: list[int], how: signal.Signals) -> None:
    """Stop processes where they are, or let them go on."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
