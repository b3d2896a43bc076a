"""The IDE: all of it comes from here, works in a browser, and only where a setting opens it."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.fixtures.browsers import Page
from tests.fixtures.databases import Database
from tests.integration.api.conftest import Api, settings
from tests.integration.api.shop import Shop, insert, order, payment, position, stock
from tests.integration.api.test_events import serving_at
from tests.integration.api.test_live import change

NO_ICON = "data:,"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def browser(database: Database) -> Iterator[TestClient]:
    """A client of an API with its IDE open."""
    with TestClient(create_app(settings(database.api_dsn, api_ide=True))) as client:
        yield client


def test_the_page_and_all_it_asks_for_are_served_by_us(browser: TestClient) -> None:
    page = browser.get("/graphql", headers=BROWSER)
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    asked = set(re.findall(r'(?:src|href)="([^"]+)"', page.text)) - {NO_ICON}
    assert len(asked) == 6
    for address in asked:
        assert address.startswith("/ide/")
        assert browser.get(address).status_code == 200, address


def test_the_sample_query_of_the_page_is_answered(browser: TestClient) -> None:
    script = browser.get("/ide/start.js").text
    sample = script.split("`")[1]
    assert Api(browser).data(sample)["orders"]["totalCount"] == 0


def test_a_browser_with_a_query_gets_its_answer(browser: TestClient) -> None:
    answer = browser.get(
        "/graphql",
        params={"query": "{ __typename }"},
        headers={**BROWSER, "Viewkeeper-Preflight": "1"},
    )
    assert answer.json() == {"data": {"__typename": "Query"}}


def test_without_the_setting_there_is_no_ide(api: Api) -> None:
    assert api.client.get("/graphql", headers=BROWSER).status_code == 400
    assert api.client.get("/ide/start.js").status_code == 404


ANSWER = "(document.querySelector('.result-window .CodeMirror')?.CodeMirror.getValue() ?? '')"
EDITED = "document.querySelector('.graphiql-query-editor .CodeMirror').CodeMirror.documentAST"
RUN = "button.graphiql-execute-button"


def test_a_person_runs_a_query_and_follows_a_live_one_without_any_other_server(
    page: Page, database: Database, tmp_path: Path
) -> None:
    rows = [order("a"), order("b", status="CONFIRMED"), order("c", currency="USD")]
    stock(database.dsn, Shop(rows, [payment("a", "p1")]))
    with psycopg.connect(database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
    with serving_at(database.api_dsn, api_ide=True) as address:
        page.go(address)
        page.sees(f"document.querySelector('{RUN}') !== null")
        page.click(RUN)
        page.sees(f"{ANSWER}.includes('totalCount')")
        answer = page.value(f"JSON.parse({ANSWER})")
        assert answer["data"]["orders"]["totalCount"] == 3
        assert answer["extensions"]["consistency"]["position"].startswith("orders:0:0,")
        page.picture(tmp_path / "query.png")
        page.click(".graphiql-tab:nth-of-type(2) button")
        page.sees(f"{EDITED}.definitions[0].operation === 'subscription'")
        page.click(RUN)
        page.sees(f"{ANSWER}.includes('resultId') && {ANSWER}.includes('CONFIRMED')")
        change(database.dsn, 1, "SHIPPED", key="b")
        page.sees(f"{ANSWER}.includes('SHIPPED') && !{ANSWER}.includes('CONFIRMED')")
        assert '"position": "orders:0:1,' in page.value(ANSWER)
        page.picture(tmp_path / "live.png")
        page.click(RUN)
        page.sees("!document.querySelector('.graphiql-spinner')")
        change(database.dsn, 2, "DELIVERED", key="b")
        assert page.hosts() == {urlsplit(address).netloc}
        assert page.complaints == []
        assert (tmp_path / "live.png").stat().st_size > 10_000
