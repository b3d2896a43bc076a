"""Who is let in, and what one sees: tokens of every wrong kind, and two customers side by side."""

import base64
import hmac
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.testclient import TestClient

from api.app import create_app
from tests.fixtures.databases import Database
from tests.integration.api.conftest import settings
from tests.integration.api.shop import busy_shop, stock
from views.ddl import CLAIM

SECRET = "a secret of more than thirty-two bytes, for tests"
FAR_AHEAD = 4_102_444_800
LONG_AGO = 1_600_000_000
RULES = {"api_jwt_audience": "views", "api_jwt_issuer": "https://login.example"}
QUERY = """{ orders(first: 100) { nodes { orderId customerId
    payments(first: 100) { nodes { orderId } } } totalCount }
  payments(first: 100) { nodes { orderId } }
  customerTotals(first: 100) { nodes { customerId } }
  dailySales(first: 100) { nodes { day } } position { build } }"""
LIGHT = "{ orders(first: 100) { nodes { customerId } } dailySales { nodes { day } } }"


def claims(role: str = "operator", **given: Any) -> dict[str, Any]:
    """Claims of a good token, but for those given; None leaves one out."""
    good = {
        "aud": "views",
        "iss": "https://login.example",
        "exp": FAR_AHEAD,
        "role": role,
        **given,
    }
    return {name: value for name, value in good.items() if value is not None}


def signed(key: Any = SECRET, algorithm: str = "HS256", /, **given: Any) -> str:
    """A token."""
    return jwt.encode(claims(**given), key, algorithm=algorithm)


def bearing(token: str) -> dict[str, str]:
    """The header for it."""
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def guarded(database: Database, **given: Any) -> Iterator[TestClient]:
    """An API that wants tokens."""
    rules = {"api_jwt_secret": SECRET, **RULES, **given}
    with TestClient(create_app(settings(database.api_dsn, **rules))) as client:
        yield client


@pytest.fixture(scope="module")
def shop(shared_database: Database) -> Database:
    """A busy shop of several customers."""
    stock(shared_database.dsn, busy_shop())
    return shared_database


@pytest.fixture(scope="module")
def client(shop: Database) -> Iterator[TestClient]:
    """An API in front of it that wants tokens."""
    with guarded(shop) as client:
        yield client


def ask(client: TestClient, token: str, query: str = QUERY) -> dict[str, Any]:
    """The data that the bearer sees."""
    body = client.post("/graphql", json={"query": query}, headers=bearing(token)).json()
    assert "errors" not in body, body["errors"]
    data: dict[str, Any] = body["data"]
    return data


def customer(name: str) -> str:
    """A customer's token."""
    return signed(role="customer", customer_id=name)


def test_an_operator_sees_everything(client: TestClient) -> None:
    data = ask(client, signed())
    assert {row["customerId"] for row in data["orders"]["nodes"]} == {"ann", "bob", "čeněk", "d e"}
    assert data["dailySales"]["nodes"]


@pytest.mark.parametrize("name", ["ann", "bob", "čeněk", "d e"])
def test_a_customer_sees_the_own_rows_and_nothing_else(
    client: TestClient, shop: Database, name: str
) -> None:
    data = ask(client, customer(name))
    orders = data["orders"]["nodes"]
    assert {row["customerId"] for row in orders} == {name}
    assert {row["customerId"] for row in data["customerTotals"]["nodes"]} == {name}
    assert data["dailySales"]["nodes"] == []
    own = {row["orderId"] for row in orders}
    with psycopg.connect(shop.dsn) as connection:
        found = connection.execute(
            "SELECT order_id FROM build_1.orders WHERE visible AND customer_id = %s", (name,)
        ).fetchall()
        paid = connection.execute(
            "SELECT count(*) FROM build_1.payments WHERE order_id = ANY (%s)", ([*own],)
        ).fetchone()
    assert own == {order_id for (order_id,) in found}
    assert data["orders"]["totalCount"] == len(own)
    payments = [each["orderId"] for each in data["payments"]["nodes"]]
    assert set(payments) <= own
    assert (min((paid or (0,))[0], 100),) == (len(payments),)


def test_nobody_elses_rows_are_found_by_key_or_id(client: TestClient) -> None:
    everything = ask(client, signed(), "{ orders(first: 100) { nodes { id orderId customerId } } }")
    theirs = [row for row in everything["orders"]["nodes"] if row["customerId"] != "ann"]
    for row in theirs[:20]:
        query = (
            f'{{ order(orderId: "{row["orderId"]}") {{ id }} node(id: "{row["id"]}") {{ id }} }}'
        )
        assert ask(client, customer("ann"), query) == {"order": None, "node": None}


def test_claims_never_leak_between_operations_that_share_connections(client: TestClient) -> None:
    def one(turn: int) -> None:
        name = ("ann", "bob", None, "nobody")[turn % 4]
        data = ask(client, signed() if name is None else customer(name), LIGHT)
        seen = {row["customerId"] for row in data["orders"]["nodes"]}
        if name is None:
            assert len(seen) == 4
        else:
            assert seen == ({name} if name != "nobody" else set())
            assert data["dailySales"]["nodes"] == []

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(one, turn) for turn in range(120)]:
            done.result()


def _none() -> str:
    header, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "none", "typ": "JWT"}, claims())
    )
    return f"{header}.{body}."


WRONG: dict[str, Callable[[], str]] = {
    "no algorithm": _none,
    "another secret": lambda: signed("another secret of more than thirty-two bytes"),
    "another algorithm of the family": lambda: signed(
        SECRET + " made longer, because this algorithm wants more bytes than that", "HS512"
    ),
    "expired": lambda: signed(exp=LONG_AGO),
    "without an end": lambda: signed(exp=None),
    "an end that is no number": lambda: signed(exp="soon"),
    "not yet": lambda: signed(nbf=FAR_AHEAD - 1),
    "for somebody else": lambda: signed(aud="others"),
    "for nobody": lambda: signed(aud=None),
    "from somebody else": lambda: signed(iss="https://evil.example"),
    "from nobody": lambda: signed(iss=None),
    "no role": lambda: signed(role=None),
    "a role that is none": lambda: signed(role="admin"),
    "a list of roles": lambda: signed(role=["operator"]),
    "a customer without an id": lambda: signed(role="customer"),
    "a customer with an empty id": lambda: signed(role="customer", customer_id=""),
    "a customer by number": lambda: signed(role="customer", customer_id=7),
    "a customer with NUL": lambda: signed(role="customer", customer_id="ann\0"),
    "cut off": lambda: signed()[:-4],
    "changed": lambda: signed().replace(".", ".e", 1),
    "not a token": lambda: "operator",
    "empty": lambda: "",
    "endless": lambda: "a" * 9000,
    "not ASCII": lambda: "ünïcödé.token.here",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_token_is_refused_without_detail(client: TestClient, wrong: str) -> None:
    token = WRONG[wrong]().encode()
    headers = {b"authorization": b"Bearer " + token}
    for accept in (b"application/json", b"application/graphql-response+json"):
        response = client.post(
            "/graphql", json={"query": "{ __typename }"}, headers={**headers, b"accept": accept}
        )
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json() == {
            "errors": [
                {
                    "message": "Send a valid bearer token.",
                    "extensions": {"code": "UNAUTHENTICATED"},
                }
            ]
        }


@pytest.mark.parametrize("header", [None, "Basic b3A6b3A=", "Bearer", "operator"])
def test_a_request_without_a_token_is_refused(client: TestClient, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    response = client.post("/graphql", json={"query": "{ __typename }"}, headers=headers)
    assert response.status_code == 401
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_the_tag_of_an_answer_belongs_to_its_caller(client: TestClient) -> None:
    query = {"query": "{ orders { totalCount } }"}
    tokens = (signed(), customer("ann"), customer("bob"))
    answers = [client.get("/graphql", params=query, headers=bearing(token)) for token in tokens]
    tags = [answer.headers["etag"] for answer in answers]
    assert len(set(tags)) == len(tags)
    known = [
        client.get("/graphql", params=query, headers=bearing(token) | {"If-None-Match": tags[1]})
        for token in tokens
    ]
    assert [answer.status_code for answer in known] == [200, 304, 200]


def test_answers_are_private(client: TestClient) -> None:
    response = client.post("/graphql", json={"query": LIGHT}, headers=bearing(signed()))
    assert response.headers["cache-control"].startswith("private")
    assert "Authorization" in response.headers["vary"]


class Keys:
    """A server of a key set, and of what else the test makes it send.

    `served` counts how often it was asked; it answers only while `speaks` is set.
    """

    def __init__(self) -> None:
        self.others: list[dict[str, Any]] = []
        self.status = 200
        self.endless = False
        self.speaks = threading.Event()
        self.speaks.set()
        self.keys = {name: rsa.generate_private_key(65537, 2048) for name in ("one", "two")}
        self.published = ["one"]
        self.served = 0
        keys = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.served += 1
                keys.speaks.wait()
                algorithm = jwt.algorithms.RSAAlgorithm
                named = [
                    {**algorithm.to_jwk(keys.keys[name].public_key(), as_dict=True), "kid": name}
                    for name in keys.published
                ]
                self.send_response(keys.status)
                self.end_headers()
                with suppress(ConnectionError):
                    while keys.endless:
                        self.wfile.write(b" " * 10_000)
                    self.wfile.write(json.dumps({"keys": [*named, *keys.others]}).encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"

    def token(self, name: str, /, **given: Any) -> str:
        """A token signed with one of the keys."""
        return jwt.encode(claims(**given), self.keys[name], "RS256", headers={"kid": name})


@pytest.fixture
def keys() -> Iterator[Keys]:
    """A key set that is served."""
    keys = Keys()
    thread = threading.Thread(target=keys.server.serve_forever)
    thread.start()
    try:
        yield keys
    finally:
        keys.speaks.set()
        keys.endless = False
        keys.server.shutdown()
        keys.server.server_close()
        thread.join()


def _signed_with_public_key(keys: Keys) -> str:
    public = keys.keys["one"].public_key()
    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = {"alg": "HS256", "kid": "one"}
    parts = (base64.urlsafe_b64encode(json.dumps(each).encode()) for each in (head, claims()))
    body = b".".join(part.rstrip(b"=") for part in parts)
    mac = base64.urlsafe_b64encode(hmac.digest(secret, body, "sha256")).rstrip(b"=")
    return (body + b"." + mac).decode()


def test_tokens_may_be_signed_with_published_keys(shop: Database, keys: Keys) -> None:
    with guarded(shop, api_jwt_secret=None, api_jwks_url=keys.url) as client:
        for _ in range(3):
            assert ask(client, keys.token("one"), LIGHT)
        assert keys.served == 1
        # A public key is public: nobody may sign with it as if it were a secret.
        for wrong in (keys.token("two"), _signed_with_public_key(keys), _none()):
            response = client.post("/graphql", json={"query": LIGHT}, headers=bearing(wrong))
            assert response.status_code == 401
        assert keys.served <= 2, "unknown keys are not looked for again and again"


def test_keys_that_cannot_be_fetched_are_not_the_callers_fault(shop: Database) -> None:
    with guarded(shop, api_jwt_secret=None, api_jwks_url="http://127.0.0.1:9/keys") as client:
        token = jwt.encode(claims(), rsa.generate_private_key(65537, 2048), "RS256")
        response = client.post("/graphql", json={"query": LIGHT}, headers=bearing(token))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


def test_a_get_needs_a_header_that_a_link_cannot_send(shared_api: Any) -> None:
    client: TestClient = shared_api.client
    refused = client.get("/graphql", params={"query": "{ __typename }"})
    assert refused.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
    for name in ("Viewkeeper-Preflight", "Apollo-Require-Preflight"):
        answered = client.get("/graphql", params={"query": "{ __typename }"}, headers={name: "1"})
        assert answered.json() == {"data": {"__typename": "Query"}}


def test_tables_of_every_view_are_guarded(shop: Database) -> None:
    with psycopg.connect(shop.dsn) as connection:
        rows = connection.execute(
            "SELECT relname, relrowsecurity FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = 'build_1'::regnamespace"
        ).fetchall()
    guarded_tables = {name for name, secured in rows if secured}
    assert guarded_tables == {"orders", "payments", "customer_totals", "daily_sales"}


def test_sql_views_ask_for_the_rights_of_who_reads_them(shop: Database) -> None:
    views = ("orders", "payments", "customer_totals", "daily_sales")
    with psycopg.connect(shop.dsn) as connection:
        options: dict[str, list[str]] = dict(
            connection.execute(
                "SELECT relname, reloptions FROM pg_class WHERE relkind = 'v'"
                " AND relnamespace = 'views'::regnamespace"
            ).fetchall()
        )
        # Nobody but readers may look at them; were it otherwise, the policies would hold all the
        # same, though the views belong to the owner, who is exempt.
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA views TO viewkeeper_customer")
        connection.execute("GRANT viewkeeper_customer TO CURRENT_USER")
        connection.execute(
            "SELECT set_config('role', 'viewkeeper_customer', true), set_config(%s, 'ann', true)",
            (CLAIM,),
        )
        counts = [
            connection.execute(f"SELECT count(*) FROM views.{name}".encode()).fetchone()
            for name in views
        ]
        others = connection.execute(
            "SELECT customer_id FROM views.orders WHERE customer_id <> 'ann' UNION ALL"
            " SELECT customer_id FROM views.customer_totals WHERE customer_id <> 'ann' UNION ALL"
            " SELECT order_id FROM views.payments"
            " WHERE order_id NOT IN (SELECT order_id FROM views.orders)"
        ).fetchall()
        connection.rollback()
    assert options == {name: ["security_invoker=true"] for name in views}
    assert [bool(count and count[0]) for count in counts] == [True, True, True, False]
    assert others == []
