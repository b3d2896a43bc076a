"""With tokens, a login that row-level security does not bind serves nothing in production."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from api.login import problem_of
from tests.fixtures.databases import Database
from tests.fixtures.servers import Servers
from tests.integration.api.test_callers import bearing, customer, guarded

QUERY = {"query": "{ orders { totalCount } }"}
POWERS = {
    "SUPERUSER": "is a superuser",
    "BYPASSRLS": "has BYPASSRLS",
    "IN ROLE {owner}": "owns the views' tables",
}


@pytest.fixture(params=POWERS)
def strong(
    request: pytest.FixtureRequest, servers: Servers, database: Database
) -> Iterator[tuple[Database, str]]:
    """A database with a login that is too strong, and why."""
    with psycopg.connect(servers.postgres.dsn(database.name), autocommit=True) as connection:
        owner = psycopg.conninfo.conninfo_to_dict(database.dsn)["user"]
        power = request.param.format(owner=owner)
        connection.execute(f"CREATE ROLE strong LOGIN PASSWORD 'x' {power}".encode())
        connection.execute("GRANT viewkeeper_reader TO strong")
        login = servers.postgres.dsn(database.name, "strong", "x")
        yield Database(database.name, database.dsn, api_dsn=login), POWERS[request.param]
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'strong'"
        )
        connection.execute("DROP ROLE strong")


def asked(client: TestClient) -> Any:
    """The response to a customer."""
    return client.post("/graphql", json=QUERY, headers=bearing(customer("ann")))


def test_a_login_that_no_policy_binds_serves_nothing(
    strong: tuple[Database, str], capsys: pytest.CaptureFixture[str]
) -> None:
    database, why = strong
    with guarded(database, mode="production") as client:
        response = asked(client)
        assert response.status_code == 503
        assert response.json()["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        assert why not in response.text, "for the operator, not for callers"
        assert client.get("/readyz").status_code == 503
    assert why in capsys.readouterr().out
    assert why in (problem_of(database.api_dsn) or "")


def test_in_development_it_is_only_told(
    strong: tuple[Database, str], capsys: pytest.CaptureFixture[str]
) -> None:
    database, why = strong
    with guarded(database, mode="dev") as client:
        assert asked(client).status_code == 200
    assert why in capsys.readouterr().out


def test_the_login_of_the_recipe_is_weak_enough(database: Database) -> None:
    assert problem_of(database.api_dsn) is None
    with guarded(database, mode="production") as client:
        assert asked(client).status_code == 200


def test_a_database_that_is_away_is_asked_later() -> None:
    assert problem_of("postgresql://u:p@127.0.0.1:1/away") is None
