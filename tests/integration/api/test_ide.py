"""The IDE: all of it comes from here, and only where a setting opens it."""

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.fixtures.databases import Database
from tests.integration.api.conftest import Api, settings

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
    asked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
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
