"""Pages of which origins may ask, what they may send, and what they may read of an answer."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.http import ALLOWED_HEADERS, EXPOSED_HEADERS
from tests.fixtures.databases import Database
from tests.integration.api.test_callers import bearing, guarded, signed
from tests.integration.api.test_live import closes, connected

SHOP = "https://shop.example"
OTHERS = ["https://evil.example", "http://shop.example", "https://shop.example.evil", "null"]
QUERY = {"query": "{ orders { totalCount } }"}


@pytest.fixture(scope="module")
def client(shared_database: Database) -> Iterator[TestClient]:
    """An API that pages of one origin may ask, with a token."""
    with guarded(shared_database, api_origins=[SHOP]) as client:
        yield client


def preflight(client: TestClient, origin: str, *, method: str = "POST", headers: str = "") -> Any:
    """What a browser asks before it lets a page ask."""
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }
    return client.options("/graphql", headers=asked)


def listed(value: str) -> set[str]:
    """The words of a header."""
    return {each.strip().lower() for each in value.split(",")}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_of_a_named_origin_may_send_each_of_our_headers(
    client: TestClient, method: str
) -> None:
    allowed = preflight(client, SHOP, method=method, headers=", ".join(ALLOWED_HEADERS))
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == SHOP
    assert set(ALLOWED_HEADERS) <= listed(allowed.headers["access-control-allow-headers"])
    assert listed(allowed.headers["access-control-allow-methods"]) == {"get", "post"}
    assert allowed.headers["access-control-max-age"] == "600"
    assert "access-control-allow-credentials" not in allowed.headers


def test_other_headers_and_methods_are_refused(client: TestClient) -> None:
    assert preflight(client, SHOP, headers="x-evil").status_code == 400
    assert preflight(client, SHOP, method="DELETE").status_code == 400


@pytest.mark.parametrize("origin", OTHERS)
def test_a_page_of_another_origin_may_neither_ask_nor_read(client: TestClient, origin: str) -> None:
    refused = preflight(client, origin)
    assert refused.status_code == 400
    answer = client.post("/graphql", json=QUERY, headers={**bearing(signed()), "Origin": origin})
    for each in (refused, answer):
        assert "access-control-allow-origin" not in each.headers


def test_answers_and_refusals_may_be_read_with_what_they_say_in_headers(
    client: TestClient,
) -> None:
    token = {**bearing(signed()), "Origin": SHOP}
    first = client.get("/graphql", params=QUERY, headers=token)
    known = {**token, "If-None-Match": first.headers["etag"]}
    answers = {
        200: first,
        304: client.get("/graphql", params=QUERY, headers=known),
        401: client.post("/graphql", json=QUERY, headers={"Origin": SHOP}),
        415: client.post("/graphql", content="{}", headers=token),
    }
    assert {code: each.status_code for code, each in answers.items()} == {
        code: code for code in answers
    }
    for answer in answers.values():
        assert answer.headers["access-control-allow-origin"] == SHOP
        exposed = listed(answer.headers["access-control-expose-headers"])
        assert exposed == {name.lower() for name in EXPOSED_HEADERS}
        assert "Origin" in answer.headers["vary"]
    for name in ("viewkeeper-position", "etag", "x-request-id"):
        assert name in first.headers
        assert name in listed(first.headers["access-control-expose-headers"])


def test_without_origins_in_the_settings_no_page_of_another_origin_is_answered(
    shared_database: Database,
) -> None:
    with guarded(shared_database) as client:
        assert "access-control-allow-origin" not in preflight(client, SHOP).headers
        assert closes(client, headers={"Origin": SHOP}) == 1008


def test_sockets_are_opened_for_named_origins_and_our_own(client: TestClient) -> None:
    bearer = f"Bearer {signed()}"
    for origin in (SHOP, "http://testserver"):
        with connected(client, {"Origin": origin}, Authorization=bearer):
            """Let in."""
    for origin in OTHERS:
        assert closes(client, headers={"Origin": origin}) == 1008
