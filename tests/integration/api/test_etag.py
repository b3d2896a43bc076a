"""Entity tags: nothing changed is a 304, and whatever changes the data changes the tag."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from httpx2 import Response

from tests.fixtures.databases import Database
from tests.integration.api.conftest import Api, serving
from tests.integration.api.shop import Shop, insert, order, position, stock

QUERY = "query Q($f: Int) { orders(first: $f) { nodes { orderId amount } } }"
VARIABLES = '{"f": 2}'


def get(api: Api, *, query: str = QUERY, tag: str | None = None, **parameters: Any) -> Response:
    api.statements.clear()
    headers = {"Viewkeeper-Preflight": "1"} | ({} if tag is None else {"If-None-Match": tag})
    given = {"variables": VARIABLES} | parameters if query == QUERY else parameters
    return api.client.get("/graphql", params={"query": query, **given}, headers=headers)


@pytest.fixture
def stocked(api: Api, database: Database) -> Api:
    stock(database.dsn, Shop([order("a"), order("b")]))
    with psycopg.connect(database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 7)])
    return api


def test_nothing_changed_is_a_304_that_still_says_where_it_stands(stocked: Api) -> None:
    first = get(stocked)
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    again = get(stocked, tag=f'"other", {tag}')
    assert (again.status_code, again.content) == (304, b"")
    for name in ("etag", "viewkeeper-position", "cache-control", "vary"):
        assert again.headers[name] == first.headers[name], name
    assert len(stocked.statements) == 1, "nothing but the position was read"
    assert get(stocked).json()["data"] == first.json()["data"]


CHANGES: dict[str, Callable[[psycopg.Connection[Any]], object]] = {
    "a position": lambda c: c.execute("UPDATE build_1.positions SET next_offset = 8"),
    "a row, by a redrive or a repair": lambda c: c.execute(
        "UPDATE ingest.builds SET change_counter = change_counter + 1"
    ),
    "a partition": lambda c: insert(c, "positions", [position("payments", 0, 1)]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_may_change_the_data_changes_the_tag(
    what: str, stocked: Api, database: Database
) -> None:
    tag = get(stocked).headers["etag"]
    with psycopg.connect(database.dsn) as connection:
        CHANGES[what](connection)
    changed = get(stocked, tag=tag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert get(stocked, tag=changed.headers["etag"]).status_code == 304


@pytest.mark.parametrize("setting", ["api_page_default", "api_page_most", "api_count_cap"])
def test_a_setting_that_shapes_data_changes_the_tag(
    setting: str, stocked: Api, database: Database
) -> None:
    tag = get(stocked).headers["etag"]
    with serving(database) as same, serving(database, **{setting: 50}) as other:
        assert get(same, tag=tag).status_code == 304
        assert get(other, tag=tag).status_code == 200


@pytest.mark.parametrize(
    "other",
    [
        {"variables": '{"f": 1}'},
        {"query": "{ orders(first: 2) { nodes { orderId amount } } }"},
        {"query": QUERY.replace("amount", "amount status"), "variables": VARIABLES},
        {"query": f"{QUERY} query R {{ __typename }}", "operationName": "Q"},
    ],
    ids=["variables", "no variables", "another selection", "another document"],
)
def test_another_question_has_another_tag(other: dict[str, str], stocked: Api) -> None:
    tag = get(stocked).headers["etag"]
    answered = get(stocked, **{"tag": tag, **other})
    assert answered.status_code == 200
    assert answered.headers["etag"] != tag


@pytest.mark.parametrize(
    "query",
    [
        "{ position { lagMs } orders { totalCount } }",
        "{ ...P } fragment P on Query { ... { position { asOf } } }",
        "{ __schema { queryType { name } } }",
    ],
)
def test_what_changes_with_time_has_no_tag(query: str, stocked: Api) -> None:
    answered = get(stocked, query=query, tag="*")
    assert answered.status_code == 200
    assert "etag" not in answered.headers


def test_a_post_and_an_error_have_no_tag(stocked: Api) -> None:
    headers = {"If-None-Match": "*"}
    posted = stocked.client.post("/graphql", json={"query": "{ __typename }"}, headers=headers)
    assert (posted.status_code, posted.headers.get("etag")) == (200, None)
    failed = get(stocked, query='{ node(id: "nobody") { id } }')
    assert "errors" in failed.json()
    assert "etag" not in failed.headers


def test_a_demand_is_kept_before_a_304(stocked: Api) -> None:
    tag = get(stocked).headers["etag"]
    headers = {"Viewkeeper-Preflight": "1", "If-None-Match": tag}
    headers |= {"Viewkeeper-At-Least": "orders:0:900", "Viewkeeper-Timeout-Ms": "0"}
    parameters = {"query": QUERY, "variables": VARIABLES}
    stale = stocked.client.get("/graphql", params=parameters, headers=headers)
    assert stale.json()["errors"][0]["extensions"]["code"] == "STALE"
