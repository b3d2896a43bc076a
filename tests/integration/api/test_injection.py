"""Texts that want to become SQL change nothing: not the answer, not the database, not a statement.

Every argument, every part of a filter, cursors, ids, tokens, headers and claims are tried.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from graphql import GraphQLField, GraphQLNamedType, get_named_type
from starlette.testclient import TestClient

from api.app import create_app, graphql_schema
from api.opaque import packed
from api.page import sealed
from tests.fixtures.databases import Database
from tests.fixtures.reports import table_rows, write_page
from tests.integration.api.compiled.hostile import open_shop
from tests.integration.api.conftest import Api, settings
from tests.integration.api.injection import HARMLESS, MARK, PAYLOADS, Place, places, state
from tests.integration.api.test_callers import RULES, SECRET, bearing, customer

PER_PLACE = 1
JSON = {"Content-Type": "application/json"}
ORDERS = "query Q($after: String) { orders(first: 3, after: $after) { nodes { id } } }"
LIST = "{ orders(first: 3) { totalCount nodes { id } } }"


@pytest.fixture(scope="module")
def shop(shared_database: Database) -> Database:
    """A shop of odd texts."""
    open_shop(shared_database.dsn)
    return shared_database


@pytest.fixture(scope="module")
def before(shop: Database) -> list[tuple[Any, ...]]:
    """The database before anybody attacked it."""
    return state(shop.dsn)


@pytest.fixture
def attacked(shop: Database, before: list[tuple[Any, ...]], shared_api: Api) -> Iterator[Api]:
    """An API; when it was attacked, its database is what it was before."""
    untouched = shared_api.data(LIST)
    yield shared_api
    assert shared_api.data(LIST) == untouched
    assert state(shop.dsn) == before


def asked(api: Api, query: str, **variables: Any) -> tuple[str | None, Any]:
    """The code of the first error, and the data; nothing sent may stand in a statement."""
    body = api.answer(query, **variables)
    assert not [text for text in api.statements if MARK in text]
    errors = body.get("errors")
    return (errors[0]["extensions"]["code"] if errors else None), body.get("data")


def attack(api: Api, place: Place, payloads: Iterator[str], many: int) -> Counter[str]:
    """Some payloads at one place of the schema; how often each outcome was met."""
    met: Counter[str] = Counter()
    for payload in itertools.islice(payloads, many):
        code, data = asked(api, place.operation, **place.variables(payload))
        assert code in (None, "BAD_USER_INPUT"), (place.name, payload, code)
        met[code or "taken for a text"] += 1
        if place.compares_equal and code is None:
            usual = asked(api, place.operation, **place.variables(HARMLESS))
            assert (code, data) == usual, (place.name, payload)
    return met


def test_every_argument_and_filter_takes_texts_for_texts(attacked: Api) -> None:
    payloads = itertools.cycle(PAYLOADS)
    tried = [*places(graphql_schema(), some_ids(attacked))]
    assert len(tried) > 200
    for place in tried:
        attack(attacked, place, payloads, PER_PLACE)


@pytest.mark.proof
def test_every_payload_at_every_place(attacked: Api, shop: Database) -> None:
    tried = [*places(graphql_schema(), some_ids(attacked))]
    met: Counter[str] = Counter()
    for place in tried:
        met += attack(attacked, place, iter(PAYLOADS), len(PAYLOADS))
    write_page(
        "injection",
        _PAGE,
        dsn=shop.dsn,
        places=len(tried),
        payloads=len(PAYLOADS),
        attacks=met.total(),
        met=table_rows(met.most_common()),
    )


_PAGE = """# Texts that want to become SQL

`make proof ARGS="-k every_payload"`, {day}, {cpus} cores: {payloads} payloads at each of {places}
places of the schema, every argument and every part of a filter, **{attacks:,} attacks, none of
which changed anything**: no statement held a word of them, no answer differed from that to a
harmless text, no error but `BAD_USER_INPUT` came, and the database is the same, row for row.

| outcome | attacks |
|---|---|
{met}

Cursors, ids, positions, headers and claims of tokens are tried with every payload in each run of
`tests/integration/api/test_injection.py`.
"""


def some_ids(api: Api) -> dict[str, str]:
    """The id of a row of every type that can be listed."""
    query = graphql_schema().query_type
    assert query is not None
    lists = [n for n, f in query.fields.items() if "nodes" in getattr(_named(f), "fields", {})]
    told = api.data(
        "{" + " ".join(f"{n}(first: 1) {{ nodes {{ __typename id }} }}" for n in lists) + "}"
    )
    rows = [row for each in told.values() for row in each["nodes"]]
    return {row["__typename"]: row["id"] for row in rows}


def _named(field: GraphQLField) -> GraphQLNamedType:
    return get_named_type(field.type)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_opaque_texts_are_no_way_in(attacked: Api, payload: str) -> None:
    (first, *_) = asked(attacked, "{ orders(first: 3) { pageInfo { endCursor } } }")[1].values()
    prefix, *_ = first["pageInfo"]["endCursor"].split(".")
    forged = sealed(prefix, packed([payload]))
    code, data = asked(attacked, ORDERS, after=forged)
    assert code in (None, "BAD_USER_INPUT")
    if code is None:
        # A cursor says where to go on: any text is a place in the order of texts.
        assert all(node["id"] for node in data["orders"]["nodes"])
    elsewhere = sealed(packed(["1", payload, payload, payload]), packed([payload]))
    for cursor in (payload, elsewhere, sealed(payload, payload), f"{forged}'"):
        assert asked(attacked, ORDERS, after=cursor)[0] == "BAD_USER_INPUT"
    query = "query Q($id: ID!) { node(id: $id) { id } nodes(ids: [$id]) { id } }"
    for parts in (
        ["Order", payload],
        ["Payment", payload, payload],
        ["DailySales", payload, "EUR"],
    ):
        code, data = asked(attacked, query, id=packed(parts))
        assert code in (None, "BAD_USER_INPUT")
        assert code or data == {"node": None, "nodes": [None]}
    for id_ in (payload, packed([payload]), packed([payload, payload])):
        code, data = asked(attacked, query, id=id_)
        assert code in (None, "BAD_USER_INPUT")
        assert code or data == {"node": None, "nodes": [None]}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_headers_and_tokens_are_no_way_in(attacked: Api, payload: str) -> None:
    client: TestClient = attacked.client
    usual = client.post("/graphql", json={"query": LIST}).json()["data"]
    attacked.statements.clear()
    for part in (
        {"extensions": {"consistency": {"atLeast": payload}}},
        {"extensions": {"consistency": {"atLeast": f"orders:0:1@{payload}"}}},
        {"extensions": {"consistency": {"atLeast": f"{payload}:0:1"}}},
        {"extensions": {"consistency": {"maxStalenessMs": payload}}},
        {"extensions": {payload: payload}},
        {"operationName": payload},
        {payload: payload},
    ):
        answer = client.post(
            "/graphql", content=json.dumps({"query": LIST, **part}), headers=JSON
        ).json()
        if "errors" in answer:
            code = answer["errors"][0]["extensions"]["code"]
            assert code in ("BAD_USER_INPUT", "BAD_REQUEST", "OPERATION_RESOLUTION_FAILURE"), part
        else:
            assert answer["data"] == usual
    for name in (
        "Viewkeeper-At-Least",
        "Viewkeeper-Max-Staleness-Ms",
        "Viewkeeper-Timeout-Ms",
        "X-Request-Id",
        "traceparent",
        "If-None-Match",
        "Authorization",
        "Accept-Language",
        "Cookie",
        "Origin",
        "X-Forwarded-For",
    ):
        raw = payload.encode().replace(b"\n", b" ").replace(b"\x00", b"0")
        headers = {name.encode(): raw, b"content-type": b"application/json"}
        response = client.post("/graphql", content=json.dumps({"query": LIST}), headers=headers)
        assert response.status_code in (200, 304, 400), (name, response.status_code)
        if response.status_code == 200 and "errors" not in response.json():
            assert response.json()["data"] == usual
    assert not [text for text in attacked.statements if MARK in text]


def test_claims_are_no_way_in(shop: Database, before: list[tuple[Any, ...]]) -> None:
    statements: list[str] = []
    guarded = settings(shop.api_dsn, api_jwt_secret=SECRET, **RULES)
    with TestClient(create_app(guarded, observe=statements.append)) as client:
        for payload in PAYLOADS:
            headers = bearing(customer(payload))
            answer = client.post("/graphql", json={"query": LIST}, headers=headers)
            if "\x00" in payload:
                assert answer.status_code == 401
            else:
                assert answer.json()["data"] == {"orders": {"totalCount": 0, "nodes": []}}
    assert statements
    assert not [text for text in statements if MARK in text]
    assert state(shop.dsn) == before
