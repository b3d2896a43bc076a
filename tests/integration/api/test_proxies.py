"""Whose word about a client is believed: that of the proxies in the settings, of nobody else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.fixtures.databases import Database
from tests.integration.api.conftest import settings
from tests.integration.api.test_budgets import ONE_A_WHILE, limited, post
from tests.integration.api.test_events import serving_at
from tests.integration.api.test_live import INIT, PROTOCOL, closes

TRUSTED = {"api_trusted_proxies": ["10.0.0.0/8", "fd00::/8"]}


@contextmanager
def reached_from(peer: str, database: Database, **given: Any) -> Iterator[TestClient]:
    """An API whose requests come from that peer."""
    app = create_app(settings(database.api_dsn, **given))
    with TestClient(app, client=(peer, 50_000)) as client:
        yield client


@pytest.mark.parametrize("proxy", ["10.1.2.3", "fd00::1"])
def test_clients_behind_a_trusted_proxy_are_told_apart(
    shared_database: Database, proxy: str
) -> None:
    with reached_from(proxy, shared_database, **TRUSTED, **ONE_A_WHILE) as client:
        for name in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
            forwarded = {"X-Forwarded-For": f"198.51.100.7, {name}, 10.9.9.9"}
            assert not limited(post(client, **forwarded))
            # What a client writes itself stands before what the proxy has seen.
            again = {"X-Forwarded-For": f"198.51.100.8, {name}"}
            assert limited(post(client, **again))


@pytest.mark.parametrize("given", [{}, TRUSTED])
def test_the_word_of_an_untrusted_peer_is_not_heard(
    shared_database: Database, given: dict[str, Any]
) -> None:
    with reached_from("192.0.2.9", shared_database, **given, **ONE_A_WHILE) as client:
        assert not limited(post(client, **{"X-Forwarded-For": "198.51.100.1"}))
        for number in range(2, 5):
            assert limited(post(client, **{"X-Forwarded-For": f"198.51.100.{number}"}))


def test_a_neighbour_on_the_same_machine_is_not_trusted_by_default(
    shared_database: Database,
) -> None:
    with serving_at(shared_database.api_dsn, **ONE_A_WHILE) as address:
        body = {"query": "{ orders { totalCount } }"}
        answers = [
            httpx.post(address, json=body, headers={"X-Forwarded-For": f"198.51.100.{number}"})
            for number in range(2)
        ]
    assert [limited(each) for each in answers] == [False, True]


def test_a_page_may_open_sockets_through_a_proxy_that_asks_for_another_host(
    shared_database: Database,
) -> None:
    headers = {
        "Host": "api.internal:8000",
        "X-Forwarded-Host": "shop.example",
        "X-Forwarded-Proto": "https",
        "Origin": "https://shop.example",
    }
    with (
        reached_from("10.1.2.3", shared_database, **TRUSTED) as client,
        client.websocket_connect("/graphql", subprotocols=PROTOCOL, headers=headers) as socket,
    ):
        socket.send_json(INIT)
        assert socket.receive_json()["type"] == "connection_ack"
    evil = {**headers, "Origin": "https://evil.example"}
    for peer, given in (("10.1.2.3", evil), ("192.0.2.9", headers)):
        with reached_from(peer, shared_database, **TRUSTED) as client:
            assert closes(client, headers=given) == 1008
