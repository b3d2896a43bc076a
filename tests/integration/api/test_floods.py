"""Connections that last are bounded, in all and for each address; who is beside a flood is served.

The addresses are those that a trusted proxy names: one machine can play as many as it likes.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httpx
import psycopg
import pytest
from starlette.testclient import TestClient
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from api.app import create_app
from dev.ports import LOOPBACK
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import settings
from tests.integration.api.shop import Shop, insert, order, position, stock
from tests.integration.api.test_events import STREAM, events, serving_at
from tests.integration.api.test_live import ORDER, status_of

FLOOD: Final = 200
SHARE: Final = 40
MOST: Final = 60
_WAIT_S: Final = 60
_AT_ONCE: Final = 20


@pytest.fixture(scope="module")
def shop(shared_database: Database) -> Database:
    """A shop with one order."""
    stock(shared_database.dsn, Shop([order("a")]))
    with psycopg.connect(shared_database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
    return shared_database


@contextmanager
def bounded(shop: Database) -> Iterator[str]:
    """An API with few places, behind a proxy that it trusts."""
    with serving_at(
        shop.api_dsn,
        api_trusted_proxies=[LOOPBACK],
        api_max_streams=MOST,
        api_max_streams_per_address=SHARE,
    ) as address:
        yield address


class Guests:
    """Sockets, of any address, until the block ends. `refused` are the answers to the others."""

    def __init__(self, address: str) -> None:
        self._url = address.replace("http", "ws", 1)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self.let_in: list[ClientConnection] = []
        self.refused: list[tuple[int, str, str]] = []

    async def __aenter__(self) -> "Guests":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(each.close() for each in self.let_in))

    async def come(self, names: Sequence[str]) -> None:
        """One for each address."""
        await asyncio.gather(*map(self._in_turn, names))

    async def _in_turn(self, name: str) -> None:
        async with self._turns:
            await self._one(name)

    async def _one(self, name: str) -> None:
        try:
            socket = await connect(
                self._url,
                subprotocols=[Subprotocol("graphql-transport-ws")],
                additional_headers={"X-Forwarded-For": name},
                open_timeout=_WAIT_S,
            )
        except InvalidStatus as error:
            response = error.response
            code = json.loads(response.body)["errors"][0]["extensions"]["code"]
            self.refused.append((response.status_code, code, response.headers["Retry-After"]))
        else:
            # At once: who says nothing is not waited for.
            await socket.send('{"type": "connection_init"}')
            async with asyncio.timeout(_WAIT_S):
                assert json.loads(await socket.recv())["type"] == "connection_ack"
            self.let_in.append(socket)


async def follow(socket: ClientConnection) -> Any:
    """The first result of a live query."""
    async with asyncio.timeout(_WAIT_S):
        message = {"type": "subscribe", "id": "1", "payload": {"query": ORDER}}
        await socket.send(json.dumps(message))
        return json.loads(await socket.recv())["payload"]


def stream(address: str, name: str) -> Any:
    """A stream that is opened for an address, or the refusal."""
    headers = {**STREAM, "X-Forwarded-For": name}
    return httpx.stream("POST", address, json={"query": ORDER}, headers=headers, timeout=_WAIT_S)


def test_a_flood_of_sockets_takes_its_share_and_neighbours_are_served(shop: Database) -> None:
    async def flood(address: str) -> None:
        async with Guests(address) as guests:
            await guests.come(["192.0.2.1"] * FLOOD)
            assert len(guests.let_in) == SHARE
            assert Counter(guests.refused) == {(429, "RATE_LIMITED", "10"): FLOOD - SHARE}
            async with Guests(address) as neighbour:
                await neighbour.come(["192.0.2.2"])
                assert status_of(await follow(neighbour.let_in[0])) == "PLACED"
                assert await asyncio.to_thread(_served, address)
            for socket in guests.let_in[:10]:
                assert status_of(await follow(socket)) == "PLACED"

    with bounded(shop) as address:
        asyncio.run(flood(address))
        # Places are given back: the same address comes in again.
        eventually(lambda: _followed(address, "192.0.2.1"), _WAIT_S, "its places are free")


def test_a_process_that_is_full_says_that_it_is_not_the_clients_fault(shop: Database) -> None:
    async def fill(address: str) -> None:
        async with Guests(address) as guests:
            await guests.come([f"192.0.2.{number % 9}" for number in range(FLOOD)])
            assert len(guests.let_in) == MOST
            assert Counter(guests.refused) == {(503, "UNAVAILABLE", "1"): FLOOD - MOST}
            assert await asyncio.to_thread(_served, address)
            assert not await asyncio.to_thread(_followed, address, "198.51.100.1")

    with bounded(shop) as address:
        asyncio.run(fill(address))


def test_streams_and_sockets_share_their_places(shop: Database) -> None:
    async def fill(address: str) -> None:
        async with Guests(address) as guests:
            await guests.come(["192.0.2.1"] * SHARE)
            await asyncio.to_thread(_refused, address)

    def _refused(address: str) -> None:
        with stream(address, "192.0.2.1") as response:
            assert response.status_code == 429
            assert response.headers["retry-after"] == "10"
            (error,) = json.loads(response.read())["errors"]
            assert error["extensions"] == {"code": "RATE_LIMITED", "retryAfterMs": 10_000}
        assert _followed(address, "192.0.2.2")

    with bounded(shop) as address:
        asyncio.run(fill(address))


def test_a_stream_gives_its_place_back_however_it_ends(shop: Database) -> None:
    app = create_app(settings(shop.api_dsn, api_max_streams=1))
    with TestClient(app) as client:
        for query in ("{ orders { totalCount } }", "subscription { nothing }", "{"):
            response = client.post("/graphql", json={"query": query}, headers=STREAM)
            assert response.status_code == 200, response.text
        assert app.state.service.endpoint.places.held == 0


def _served(address: str) -> bool:
    """Whether a request without a stream is answered."""
    answer = httpx.post(address, json={"query": "{ __typename }"}, timeout=_WAIT_S)
    return answer.status_code == 200


def _followed(address: str, name: str) -> bool:
    with stream(address, name) as response:
        if response.status_code != 200:
            return False
        _, first = next(events(response))
        return status_of(first) == "PLACED"
