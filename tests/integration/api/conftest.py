"""The API in front of a database of the test's own."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import ApiSettings
from tests.fixtures.databases import Database


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


@pytest.fixture
def api(database: Database) -> Iterator[Api]:
    """The API on the test's database, with the login that can only read."""
    statements: list[str] = []
    app = create_app(settings(database.api_dsn), observe=statements.append)
    with TestClient(app) as client:
        yield Api(client, statements)
