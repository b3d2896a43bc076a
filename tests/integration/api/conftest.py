"""The API in front of a database of the test's own."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import ApiSettings
from tests.fixtures.databases import Database, DatabaseServer


@dataclass(frozen=True, slots=True)
class Api:
    """A client of a running API. `statements` are the SQL texts of the last question."""

    client: TestClient
    statements: list[str] = field(default_factory=list)

    def answer(self, query: str, **variables: Any) -> dict[str, Any]:
        """The whole body, errors included."""
        self.statements.clear()
        # Written by json, which can say everything that a client can, half a character too.
        content = json.dumps({"query": query, "variables": variables})
        headers = {"Content-Type": "application/json"}
        response = self.client.post("/graphql", content=content, headers=headers)
        body: dict[str, Any] = response.json()
        return body

    def data(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of an answer without errors."""
        body = self.answer(query, **variables)
        assert "errors" not in body, body["errors"]
        data: dict[str, Any] = body["data"]
        return data

    def code(self, query: str, **variables: Any) -> str:
        """The code of an answer's only error."""
        (error,) = self.answer(query, **variables)["errors"]
        code: str = error["extensions"]["code"]
        return code


def settings(dsn: str, **given: Any) -> ApiSettings:
    """Settings that no environment and no file has a say in."""
    return ApiSettings.model_validate(
        {"mode": "dev", "api_database_url": dsn, "api_connections": 4, **given}
    )


@contextmanager
def serving(database: Database, **given: Any) -> Iterator[Api]:
    """The API on a database, with the login that can only read."""
    statements: list[str] = []
    app = create_app(settings(database.api_dsn, **given), observe=statements.append)
    with TestClient(app) as client:
        yield Api(client, statements)


@pytest.fixture
def api(database: Database) -> Iterator[Api]:
    """The API on the test's own database."""
    with serving(database) as served:
        yield served


@pytest.fixture(scope="module")
def shared_database(database_server: DatabaseServer) -> Iterator[Database]:
    """A database for the tests of one module that only read."""
    copy = database_server.create(template=database_server.template.name)
    yield copy
    database_server.drop(copy)


@pytest.fixture(scope="module")
def shared_api(shared_database: Database) -> Iterator[Api]:
    """The API on the database that the module's tests share."""
    with serving(shared_database) as served:
        yield served
