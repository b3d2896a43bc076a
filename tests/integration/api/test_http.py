"""GraphQL over HTTP, and the routes beside it."""

from functools import partial
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.schema import sdl
from tests.fixtures.databases import Database
from tests.integration.api.conftest import Api, settings
from tests.integration.api.shop import Shop, order, stock

MODERN = "application/graphql-response+json"
QUERY = {"query": "{ position { build } }"}


def _post(api: Api, *, accept: str = MODERN, **given: Any) -> Any:
    return api.client.post("/graphql", headers={"Accept": accept}, **given)


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (MODERN, MODERN),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        (f"{MODERN}, application/json;q=0.9", MODERN),
        (f"application/json, {MODERN};q=0.5", "application/json"),
    ],
)
def test_the_answer_has_the_type_that_was_asked_for(
    shared_api: Api, accept: str, answered: str
) -> None:
    response = _post(shared_api, accept=accept, json=QUERY)
    assert response.status_code == 200
    assert response.headers["content-type"] == f"{answered}; charset=utf-8"
    assert response.json()["data"] == {"position": {"build": "build_1"}}


def test_a_type_that_we_do_not_speak_is_406(shared_api: Api) -> None:
    assert _post(shared_api, accept="text/html", json=QUERY).status_code == 406
    assert _post(shared_api, accept=f"{MODERN};q=0", json=QUERY).status_code == 406


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=UTF-8", 200),
        ("application/json; charset=latin-1", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("text/plain", 415),
        ("", 415),
    ],
)
def test_only_json_bodies_are_read(shared_api: Api, content_type: str, status: int) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    content = b'{"query": "{ __typename }"}'
    response = shared_api.client.post("/graphql", content=content, headers=headers)
    assert response.status_code == status


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "BAD_REQUEST"),
        (b"{", "BAD_REQUEST"),
        (b"[]", "BAD_REQUEST"),
        (b'[{"query": "{ __typename }"}]', "BAD_REQUEST"),
        (b"{}", "BAD_REQUEST"),
        (b'{"query": 5}', "BAD_REQUEST"),
        (b'{"query": "{ __typename }", "variables": []}', "BAD_REQUEST"),
        (b'{"query": "{ __typename }", "operationName": 1}', "BAD_REQUEST"),
        (b'{"query": "{ __typename }", "extensions": "x"}', "BAD_REQUEST"),
        (b'{"query": "{"}', "GRAPHQL_PARSE_FAILED"),
        (b'{"query": "{ nothing }"}', "GRAPHQL_VALIDATION_FAILED"),
        (b'{"query": "query A { __typename } query B { __typename }"}', "OPERATION_RESOLUTION"),
        (b'{"query": "query A { __typename }", "operationName": "B"}', "OPERATION_RESOLUTION"),
        (b'{"query": "fragment F on Query { __typename }"}', "OPERATION_RESOLUTION"),
        (b'{"query": "query ($a: Int!) { orders(first: $a) { totalCount } }"}', "BAD_USER_INPUT"),
    ],
)
def test_a_request_that_cannot_be_run_is_400_and_says_why(
    shared_api: Api, body: bytes, code: str
) -> None:
    headers = {"Content-Type": "application/json", "Accept": MODERN}
    response = shared_api.client.post("/graphql", content=body, headers=headers)
    assert response.status_code == 400
    answer = response.json()
    assert "data" not in answer
    assert answer["errors"][0]["extensions"]["code"].startswith(code)


def test_nulls_where_nothing_is_said_are_nothing(shared_api: Api) -> None:
    body = {**QUERY, "variables": None, "operationName": None, "extensions": None}
    assert _post(shared_api, json=body).status_code == 200


def test_queries_may_come_by_get_and_nothing_else_may(shared_api: Api) -> None:
    parts = {"query": "query A($f: Int) { orders(first: $f) { totalCount } }", "variables": "{}"}
    get = partial(shared_api.client.get, "/graphql", headers={"Viewkeeper-Preflight": "1"})
    assert get(params=parts).json()["data"] == {"orders": {"totalCount": 0}}
    assert get(params={**parts, "variables": "{"}).status_code == 400
    for other in ("mutation { a }", "subscription { a }"):
        refused = get(params={"query": other})
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    refused = shared_api.client.put("/graphql", json=QUERY)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")


def test_large_bodies_and_documents_are_refused(shared_api: Api) -> None:
    assert _post(shared_api, json={"query": "{ __typename }" + " " * 100_000}).status_code == 413
    assert _post(shared_api, json={"query": "{ __typename }" + " " * 10_000}).status_code == 400
    many = "{ " + "a " * 2500 + "}"
    assert _post(shared_api, json={"query": many}).json()["errors"][0]["extensions"]["code"] == (
        "GRAPHQL_PARSE_FAILED"
    )


def test_names_are_not_suggested(shared_api: Api) -> None:
    answers = [
        shared_api.answer("{ order { id } }"),
        shared_api.answer("{ ordersx { totalCount } }"),
    ]
    assert "did you mean" not in str(answers).lower()


def test_introspection_is_closed_in_production(database: Database) -> None:
    app = create_app(settings(database.api_dsn, mode="production"))
    with TestClient(app) as client:
        errors = Api(client).answer("{ __schema { queryType { name } } }")["errors"]
        assert {error["extensions"]["code"] for error in errors} == {"GRAPHQL_VALIDATION_FAILED"}
        assert Api(client).data("{ __typename }")


def test_what_nobody_expected_is_masked_and_found_again_by_its_id(
    api: Api, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    stock(database.dsn, Shop([order("a", status="SECRET-STATE")]))
    headers = {"X-Request-Id": "trace.me-1"}
    body = {"query": '{ order(orderId: "a") { orderId status } }'}
    response = api.client.post("/graphql", json=body, headers=headers)
    (error,) = response.json()["errors"]
    assert response.json()["data"] == {"order": None}
    assert error["extensions"] == {"code": "INTERNAL_SERVER_ERROR", "requestId": "trace.me-1"}
    assert error["path"] == ["order", "status"]
    assert "SECRET" not in response.text
    assert response.headers["x-request-id"] == "trace.me-1"
    logged = capsys.readouterr().out
    assert "SECRET-STATE" in logged
    assert "trace.me-1" in logged


def test_a_request_id_that_is_no_word_is_replaced(shared_api: Api) -> None:
    for given in ("a b", "x" * 129, ""):
        response = shared_api.client.get("/healthz", headers={"X-Request-Id": given})
        assert response.headers["x-request-id"] not in (given, "")


def test_a_statement_that_takes_too_long_is_a_timeout(database: Database) -> None:
    app = create_app(settings(database.api_dsn, api_statement_timeout_s=0.2))
    with TestClient(app) as client, psycopg.connect(database.dsn) as connection:
        Api(client).data("{ position { token } }")
        connection.execute("LOCK TABLE build_1.orders")
        body = Api(client).answer("{ orders { totalCount } }")
    assert body["errors"][0]["extensions"]["code"] == "TIMEOUT"
    assert "data" not in body


def test_the_schema_is_served_as_text(shared_api: Api) -> None:
    assert shared_api.client.get("/schema.graphql").text == sdl()


def test_health_readiness_and_metrics_answer(api: Api) -> None:
    assert api.client.get("/healthz").json() == {"healthy": True}
    ready = api.client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert ready.json()["build"] == "build_1"
    api.code("{ nothing }")
    text = api.client.get("/metrics").text
    assert "viewkeeper_api_build 1.0" in text
    assert (
        'viewkeeper_api_operations_total{operation="",outcome="GRAPHQL_VALIDATION_FAILED"' in text
    )
    assert 'viewkeeper_api_requests_total{method="GET",route="/readyz",status="200"} 1.0' in text


def test_it_is_not_ready_while_a_view_of_its_own_is_not_in_the_build(
    api: Api, database: Database
) -> None:
    with psycopg.connect(database.dsn) as connection:
        connection.execute("DELETE FROM ingest.build_views WHERE view = 'daily_sales'")
    response = api.client.get("/readyz")
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert "daily_sales" in response.json()["checks"]["database"]


def test_the_login_of_the_api_can_write_nothing(database: Database) -> None:
    with psycopg.connect(database.api_dsn) as connection:
        for table in ("build_1.orders", "build_1.positions", "ingest.builds"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"DELETE FROM {table}".encode())
            connection.rollback()
