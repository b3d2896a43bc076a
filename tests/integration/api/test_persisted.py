"""Documents by name: Apollo's automatic ones, and the trusted ones of a manifest."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import ApiSettings
from tests.fixtures.databases import Database
from tests.integration.api.conftest import Api, settings

TRUSTED = "query Totals($f: Int) { orders(first: $f) { totalCount } }"
OTHER = "{ payments { totalCount } }"
NAME = "0123456789abcdef"
PREFLIGHT = {"Viewkeeper-Preflight": "1"}


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def by_hash(text: str, **more: Any) -> dict[str, Any]:
    query = {"version": 1, "sha256Hash": hashed(text)}
    return {"extensions": {"persistedQuery": query}, **more}


def post(client: TestClient, body: dict[str, Any]) -> Any:
    return client.post("/graphql", json=body).json()


def get(client: TestClient, body: dict[str, Any]) -> Any:
    parameters = {name: v if isinstance(v, str) else json.dumps(v) for name, v in body.items()}
    return client.get("/graphql", params=parameters, headers=PREFLIGHT).json()


def over_socket(client: TestClient, body: dict[str, Any]) -> Any:
    with client.websocket_connect("/graphql", subprotocols=["graphql-transport-ws"]) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json()["type"] == "connection_ack"
        socket.send_json({"type": "subscribe", "id": "1", "payload": body})
        answer = socket.receive_json()
    return {"errors": answer["payload"]} if answer["type"] == "error" else answer["payload"]


WAYS = [post, get, over_socket]


def code(answer: Any) -> str:
    (error,) = answer["errors"]
    return str(error["extensions"]["code"])


@pytest.mark.parametrize("send", WAYS)
def test_a_hash_is_enough_once_its_document_was_sent(send: Any, api: Api) -> None:
    unknown = send(api.client, by_hash(OTHER))
    assert code(unknown) == "PERSISTED_QUERY_NOT_FOUND"
    assert unknown["errors"][0]["message"] == "PersistedQueryNotFound"
    sent = send(api.client, by_hash(OTHER, query=OTHER))
    assert sent["data"] == {"payments": {"totalCount": 0}}
    assert send(api.client, by_hash(OTHER))["data"] == sent["data"]


def test_a_client_that_must_send_the_document_is_told_so_with_200(api: Api) -> None:
    accept = {"Accept": "application/graphql-response+json"}
    answer = api.client.post("/graphql", json=by_hash(OTHER), headers=accept)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "extensions",
    [
        {"persistedQuery": {"version": 1, "sha256Hash": hashed(OTHER)}},
        {"persistedQuery": {"version": 2, "sha256Hash": hashed(TRUSTED)}},
        {"persistedQuery": {"version": 1, "sha256Hash": 7}},
        {"persistedQuery": hashed(TRUSTED)},
    ],
    ids=["of another document", "another protocol", "no text", "no object"],
)
def test_a_hash_that_makes_no_sense_is_refused(extensions: Any, shared_api: Api) -> None:
    answer = post(shared_api.client, {"query": TRUSTED, "extensions": extensions})
    assert code(answer) == "BAD_REQUEST"


def test_a_document_that_is_too_long_is_not_remembered(api: Api) -> None:
    long = OTHER + " " * 10_000
    assert code(post(api.client, by_hash(long, query=long))) == "QUERY_TOO_COMPLEX"
    assert code(post(api.client, by_hash(long))) == "PERSISTED_QUERY_NOT_FOUND"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "persisted-documents.json"
    path.write_text(json.dumps({NAME: TRUSTED, hashed(OTHER): OTHER}))
    return path


@pytest.fixture
def strict(database: Database, manifest: Path) -> Iterator[TestClient]:
    """An API that runs nothing but the manifest."""
    given = {"api_trusted_documents": manifest, "api_only_trusted_documents": True}
    with TestClient(create_app(settings(database.api_dsn, **given))) as client:
        yield client


@pytest.mark.parametrize("send", WAYS)
def test_a_trusted_document_runs_by_its_id_its_hash_or_its_text(
    send: Any, strict: TestClient
) -> None:
    asked = [
        ({"documentId": NAME, "variables": {"f": 3}}, {"orders": {"totalCount": 0}}),
        ({"documentId": f"sha256:{hashed(OTHER)}"}, {"payments": {"totalCount": 0}}),
        (by_hash(OTHER), {"payments": {"totalCount": 0}}),
        ({"query": OTHER}, {"payments": {"totalCount": 0}}),
    ]
    for body, data in asked:
        assert send(strict, body)["data"] == data, body


@pytest.mark.parametrize("send", WAYS)
def test_nothing_else_runs_where_only_trusted_documents_do(send: Any, strict: TestClient) -> None:
    other = "{ customerTotals { totalCount } }"
    refused = [
        {"query": other},
        by_hash(other, query=other),
        by_hash(other),
        {"documentId": "unknown"},
        {"documentId": NAME, "query": other},
        {"query": TRUSTED + " "},
    ]
    for body in refused:
        assert code(send(strict, body)) == "QUERY_NOT_IN_SAFELIST", body


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}'])
def test_a_manifest_that_is_none_is_said_at_start(content: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        settings("postgresql://nowhere", api_trusted_documents=path)


def test_without_a_manifest_nothing_can_be_all_that_runs() -> None:
    with pytest.raises(ValueError, match="VIEWKEEPER_API_TRUSTED_DOCUMENTS is missing"):
        ApiSettings.model_validate(
            {"api_database_url": "postgresql://nowhere", "api_only_trusted_documents": True}
        )
