"""Tokens that want more than their due, over every transport; and key sets that change or fail."""

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.testclient import TestClient

from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.api.test_callers import (
    SECRET,
    WRONG,
    Keys,
    bearing,
    claims,
    guarded,
    keys,
    signed,
)
from tests.integration.api.test_events import STREAM
from tests.integration.api.test_live import ORDER, closes, connected

__all__ = ["keys"]

QUERY: Final = {"query": "{ __typename }"}
PATIENCE_S: Final = 60
THEIRS: Final = rsa.generate_private_key(65537, 2048)
"""A key that only the forger has."""


def status(client: TestClient, token: str) -> int:
    """Of the answer to the bearer."""
    response = client.post("/graphql", json=QUERY, headers=bearing(token))
    if response.status_code == 401:
        assert response.json()["errors"][0]["message"] == "Send a valid bearer token."
    return response.status_code


def with_header(header: dict[str, Any], key: Any = SECRET) -> str:
    """A token with good claims and that header, signed by the algorithm that the header names."""
    algorithm = jwt.get_algorithm_by_name(header["alg"])
    parts = (base64.urlsafe_b64encode(json.dumps(each).encode()) for each in (header, claims()))
    body = b".".join(part.rstrip(b"=") for part in parts)
    signature = algorithm.sign(body, algorithm.prepare_key(key))
    return (body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def public(key: rsa.RSAPrivateKey) -> dict[str, Any]:
    """Its public half, as a key set has it."""
    return jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)


@pytest.fixture(scope="module")
def client(shared_database: Database) -> Iterator[TestClient]:
    """An API that wants tokens signed with a secret."""
    with guarded(shared_database) as client:
        yield client


@pytest.fixture
def keyed(shared_database: Database, keys: Keys) -> Iterator[TestClient]:
    """An API that wants tokens signed with a published key."""
    with guarded(shared_database, api_jwt_secret=None, api_jwks_url=keys.url) as client:
        yield client


ODD_HEADERS: dict[str, Callable[[], str]] = {
    "an extension that must be understood": lambda: with_header(
        {"alg": "HS256", "crit": ["exp"], "exp": 1}
    ),
    "extensions that are no list": lambda: with_header({"alg": "HS256", "crit": "b64"}),
    "no extensions": lambda: with_header({"alg": "HS256", "crit": []}),
    "a payload that is not encoded": lambda: with_header(
        {"alg": "HS256", "crit": ["b64"], "b64": False}
    ),
    "a key id that is a number": lambda: with_header({"alg": "HS256", "kid": 1}),
    "a key id that is a list": lambda: with_header({"alg": "HS256", "kid": ["one"]}),
    "an algorithm in other letters": lambda: signed().replace(
        signed().split(".")[0], base64.urlsafe_b64encode(b'{"alg":"hs256"}').decode().rstrip("=")
    ),
    "a key of its own": lambda: with_header({"alg": "RS256", "jwk": public(THEIRS)}, THEIRS),
}


@pytest.mark.parametrize("odd", ODD_HEADERS)
def test_a_header_that_asks_for_more_is_refused(client: TestClient, odd: str) -> None:
    assert status(client, with_header({"alg": "HS256", "typ": "JWT"})) == 200
    assert status(client, ODD_HEADERS[odd]()) == 401


@pytest.mark.parametrize("wrong", [*WRONG, *ODD_HEADERS])
def test_a_wrong_token_opens_neither_a_socket_nor_a_stream(client: TestClient, wrong: str) -> None:
    token = {**WRONG, **ODD_HEADERS}[wrong]()
    init = {"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}
    assert closes(client, init) == 4403
    headers = {b"authorization": b"Bearer " + token.encode(), b"accept": STREAM["Accept"].encode()}
    response = client.post("/graphql", json={"query": ORDER}, headers=headers)
    assert response.status_code == 401
    assert response.json()["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}


@pytest.mark.parametrize("value", [None, 7, True, [], {"Bearer": "x"}, "", "Bearer"])
def test_a_socket_needs_a_token_that_is_a_text(client: TestClient, value: Any) -> None:
    init = {"type": "connection_init", "payload": {"Authorization": value}}
    assert closes(client, init) == 4403
    with connected(client, Authorization=f"Bearer {signed()}"):
        """Let in."""


def test_keys_that_a_token_brings_or_points_to_are_not_used(keyed: TestClient, keys: Keys) -> None:
    assert status(keyed, keys.token("one")) == 200
    known = keys.served
    certificate = base64.b64encode(b"not ours").decode()
    for header in (
        {"jwk": public(THEIRS)},
        {"jwk": public(THEIRS), "kid": "one"},
        {"jku": keys.url, "kid": "one"},
        {"x5u": keys.url, "kid": "one"},
        {"x5c": [certificate], "kid": "one"},
        {"kid": "../../dev/null"},
        {"kid": ""},
    ):
        assert status(keyed, with_header({"alg": "RS256", **header}, THEIRS)) == 401
    assert keys.served <= known + 1, "at most our own set is looked at, for an unknown id"


def test_only_signing_keys_of_our_algorithm_are_taken_from_a_set(
    keyed: TestClient, keys: Keys
) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    elliptic = jwt.algorithms.ECAlgorithm.to_jwk(curve.public_key(), as_dict=True)
    shared = base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("=")
    keys.others = [
        {**elliptic, "kid": "curve"},
        {"kty": "oct", "k": shared, "kid": "shared"},
        {**public(THEIRS), "kid": "hiding", "use": "enc"},
        {"kty": "what", "kid": "odd"},
        {},
    ]
    assert status(keyed, keys.token("one")) == 200
    for header, key in (
        ({"alg": "ES256", "kid": "curve"}, curve),
        ({"alg": "HS256", "kid": "shared"}, SECRET),
        ({"alg": "HS256", "kid": "one"}, SECRET),
        ({"alg": "RS256", "kid": "hiding"}, THEIRS),
        ({"alg": "PS256", "kid": "one"}, keys.keys["one"]),
        ({"alg": "RS512", "kid": "one"}, keys.keys["one"]),
    ):
        assert status(keyed, with_header(header, key)) == 401, header


def test_keys_are_rotated_without_a_restart(
    keyed: TestClient,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.auth._RETRY_S", 0.0)
    assert status(keyed, keys.token("one")) == 200
    assert status(keyed, keys.token("two")) == 401
    keys.published = ["one", "two"]
    assert [status(keyed, keys.token(name)) for name in ("one", "two")] == [200, 200]
    keys.published = ["two"]
    monkeypatch.setattr("api.auth._FRESH_S", 0.0)
    eventually(lambda: status(keyed, keys.token("one")) == 401, PATIENCE_S, "a key is taken back")
    assert status(keyed, keys.token("two")) == 200


def test_good_keys_serve_everybody_while_their_server_hangs(
    keyed: TestClient,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert status(keyed, keys.token("one")) == 200
    for name, value in (("_FRESH_S", 0.0), ("_RETRY_S", 0.0), ("_FETCH_TIMEOUT_S", 600.0)):
        monkeypatch.setattr(f"api.auth.{name}", value)
    known = keys.served
    keys.speaks.clear()
    with ThreadPoolExecutor(10) as threads:
        asked = [threads.submit(status, keyed, keys.token("one")) for _ in range(20)]
        try:
            assert {each.result(PATIENCE_S) for each in asked} == {200}
            assert keys.served <= known + 1, "one of them asks for new keys"
            strange = threads.submit(status, keyed, keys.token("two"))
            assert status(keyed, keys.token("one")) == 200, "who waits for a key waits alone"
        finally:
            keys.speaks.set()
        assert strange.result(PATIENCE_S) == 401


def test_keys_that_could_not_be_asked_for_too_long_are_not_trusted(
    keyed: TestClient,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.auth._RETRY_S", 0.0)
    assert status(keyed, keys.token("one")) == 200
    keys.status = 500
    monkeypatch.setattr("api.auth._FRESH_S", 0.0)
    assert status(keyed, keys.token("one")) == 200
    monkeypatch.setattr("api.auth._STALE_S", 0.0)
    assert status(keyed, keys.token("one")) == 503
    keys.status = 200
    monkeypatch.setattr("api.auth._STALE_S", 3_600.0)
    assert status(keyed, keys.token("one")) == 200


def test_a_key_set_without_end_is_not_read_to_its_end(
    keyed: TestClient,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.auth._FETCH_TIMEOUT_S", 600.0)
    monkeypatch.setattr("api.auth._RETRY_S", 0.0)
    keys.endless = True
    with ThreadPoolExecutor(1) as threads:
        try:
            assert threads.submit(status, keyed, keys.token("one")).result(PATIENCE_S) == 503
        finally:
            keys.endless = False
    assert status(keyed, keys.token("one")) == 200


@pytest.mark.parametrize("sent", [[], {"keys": 5}, {"keys": [{"kty": "RSA", "n": 5, "e": []}]}])
def test_a_key_set_that_is_none_is_not_the_callers_fault(
    keyed: TestClient,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
    sent: Any,
) -> None:
    async def body(_: str) -> bytes:
        return json.dumps(sent).encode()

    monkeypatch.setattr("api.auth._body", body)
    assert status(keyed, keys.token("one")) == 503


def test_a_socket_is_told_to_come_again_while_keys_cannot_be_fetched(
    keyed: TestClient, keys: Keys
) -> None:
    keys.status = 500
    init = {"type": "connection_init", "payload": {"Authorization": f"Bearer {keys.token('one')}"}}
    assert closes(keyed, init) == 1013


def test_an_unexpected_failure_closes_the_socket_and_is_masked(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("SECRET")

    monkeypatch.setattr("api.sockets.asked_by", broken)
    bearer = f"Bearer {signed()}"
    init = {"type": "connection_init", "payload": {"Authorization": bearer}}
    ask = {"type": "subscribe", "id": "1", "payload": {"query": ORDER}}
    assert closes(client, init, ask) == 4500
