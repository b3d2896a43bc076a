"""How large answers may be, and how they travel: refused above the limit, compressed if wanted."""

import gzip
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.compression import refuses_gzip
from tests.fixtures.databases import Database
from tests.integration.api.conftest import settings
from tests.integration.api.shop import Shop, order, stock
from tests.integration.api.test_events import STREAM, events, serving_at
from tests.integration.api.test_live import ORDER, connected, next_of, subscribe

LARGE = "{ orders(first: 100) { nodes { orderId customerId status placedAt } } }"
PLAIN = '{ orders(first: 100) { nodes { orderId } } order(orderId: "a") { id: id } __typename }'
SMALL = '{ order(orderId: "a") { status } }'


@pytest.fixture(scope="module")
def shop(shared_database: Database) -> Database:
    """A shop of a hundred orders."""
    stock(shared_database.dsn, Shop([order("a"), *(order(f"o{n:03}") for n in range(99))]))
    return shared_database


@pytest.fixture(scope="module")
def client(shop: Database) -> Iterator[TestClient]:
    """An API in front of it."""
    with TestClient(create_app(settings(shop.api_dsn))) as client:
        yield client


def raw(client: TestClient, query: str, accepted: str, **headers: str) -> Any:
    """An answer as it travels, in `content`."""
    given = {"Accept-Encoding": accepted, "Viewkeeper-Preflight": "1", **headers}
    url, params = "/graphql", {"query": query}
    with client.stream("GET", url, params=params, headers=given) as response:
        response._content = b"".join(response.iter_raw())
    return response


def test_large_answers_are_compressed_for_who_accepts_it(client: TestClient) -> None:
    plain, packed = raw(client, LARGE, "identity"), raw(client, LARGE, "br, gzip;q=0.8")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.content) * 4 < len(plain.content)
    assert int(packed.headers["content-length"]) == len(packed.content)
    data = [plain.json()["data"], httpx.Response(200, content=gzip.decompress(packed.content))]
    assert data[0] == data[1].json()["data"]
    for each in (plain, packed):
        assert "Accept-Encoding" in each.headers["vary"]
        assert "Authorization" in each.headers["vary"]


@pytest.mark.parametrize("accepted", ["gzip;q=0", "GZIP; Q=0.000", "identity", "", "br"])
def test_nobody_gets_what_they_do_not_accept(client: TestClient, accepted: str) -> None:
    assert "content-encoding" not in raw(client, LARGE, accepted).headers


def test_q_is_read_as_it_is_written() -> None:
    assert not any(
        map(refuses_gzip, ("gzip;q=0.001", "gzip;q=1", "gzip", "br;q=0, gzip", "", "*;q=0"))
    )


def test_small_answers_are_left_as_they_are(client: TestClient) -> None:
    assert "content-encoding" not in raw(client, SMALL, "gzip").headers


def test_a_tag_is_the_same_however_the_answer_travels(client: TestClient) -> None:
    plain, packed = raw(client, LARGE, "identity"), raw(client, LARGE, "gzip")
    assert plain.headers["etag"] == packed.headers["etag"]
    assert plain.headers["etag"].startswith('W/"')
    for accepted in ("identity", "gzip"):
        known = raw(client, LARGE, accepted, **{"If-None-Match": plain.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
        assert "content-encoding" not in known.headers
        assert known.headers["vary"] == "Accept, Authorization, Accept-Encoding"


def test_a_head_tells_what_a_get_would(client: TestClient) -> None:
    given = {"Accept-Encoding": "gzip"}
    get, head = (client.request(method, "/schema.graphql", headers=given) for method in _METHODS)
    for name in ("content-encoding", "content-length", "vary"):
        assert head.headers[name] == get.headers[name]


_METHODS = ("GET", "HEAD")


def test_compression_can_be_left_to_a_proxy(shop: Database) -> None:
    with TestClient(create_app(settings(shop.api_dsn, api_compress_bytes=0))) as client:
        assert "content-encoding" not in raw(client, LARGE, "gzip").headers


@pytest.mark.parametrize("query", [LARGE, PLAIN, "{ __schema { types { name } } }"])
def test_an_answer_may_not_grow_without_end(shop: Database, query: str) -> None:
    app = create_app(settings(shop.api_dsn, api_max_result_bytes=1_000))
    with TestClient(app) as client:
        for accept in ("application/json", "application/graphql-response+json"):
            response = client.post("/graphql", json={"query": query}, headers={"Accept": accept})
            assert len(response.content) < 1_000
            assert "data" not in response.json()
            (error,) = response.json()["errors"]
            assert error["extensions"]["code"] == "QUERY_TOO_COMPLEX"
            assert error["extensions"]["limits"]["resultBytes"] == 1_000
        small = client.post("/graphql", json={"query": SMALL}).json()
        assert small["data"] == {"order": {"status": "PLACED"}}


@pytest.mark.parametrize("query", [LARGE, "subscription" + LARGE])
def test_an_answer_may_not_grow_over_a_socket_either(shop: Database, query: str) -> None:
    app = create_app(settings(shop.api_dsn, api_max_result_bytes=1_000))
    with TestClient(app) as client, connected(client) as socket:
        subscribe(socket, query)
        message = socket.receive_json()
        assert message["type"] == "error"
        assert message["payload"][0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"
        subscribe(socket, ORDER)
        assert next_of(socket)["data"]["order"]["status"] == "PLACED"


def test_streams_are_bounded_and_never_compressed(shop: Database) -> None:
    headers = {**STREAM, "Accept-Encoding": "gzip"}
    with serving_at(shop.api_dsn, api_max_result_bytes=7_000) as address:
        with httpx.stream("POST", address, json={"query": LARGE}, headers=headers) as response:
            (one, end) = events(response)
        assert one[1]["errors"][0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"
        assert end == ("complete", None)
        less = LARGE.replace("100", "50")
        with httpx.stream("POST", address, json={"query": less}, headers=headers) as response:
            assert "content-encoding" not in response.headers
            (one, _) = events(response)
        assert len(str(one[1])) > 2_000
        assert len(one[1]["data"]["orders"]["nodes"]) == 50
