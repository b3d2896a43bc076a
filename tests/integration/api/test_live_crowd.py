"""Live queries for a crowd: one computation for equal ones, and nobody waits for the slow."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from websockets.sync.client import connect

from api.app import create_app
from dev.ports import LOOPBACK, free_port
from tests.fixtures.apis import ApiProcess, api_process
from tests.fixtures.databases import Database
from tests.fixtures.reports import write_page
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import settings
from tests.integration.api.crowd import PROTOCOL, Crowd
from tests.integration.api.shop import Shop, insert, order, position, stock
from tests.integration.api.test_live import ORDER, change, label, status_of
from views.positions import parse_position


@pytest.fixture
def shop(database: Database) -> Database:
    """A shop of a thousand orders."""
    stock(database.dsn, Shop([order("a"), *(order(f"o{n:04}") for n in range(1000))]))
    with psycopg.connect(database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
    return database


@contextmanager
def observed(database: Database) -> Iterator[tuple[str, list[str]]]:
    """An API on a port, and the statements that it executes."""
    statements: list[str] = []
    app = create_app(settings(database.api_dsn), observe=statements.append)
    server = uvicorn.Server(
        uvicorn.Config(app, host=LOOPBACK, port=(port := free_port()), log_config=None)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, 20, "the API serves")
        yield f"http://{LOOPBACK}:{port}/graphql", statements
    finally:
        server.should_exit = True
        thread.join()


def computations(statements: list[str]) -> int:
    """How many of them read orders: each is a live query that was computed."""
    return sum("order_id" in text for text in statements)


def test_equal_live_queries_share_one_computation(shop: Database) -> None:
    changes = 5

    async def follow(address: str, statements: list[str]) -> None:
        async with Crowd(address) as crowd:
            await crowd.come([ORDER] * 100)
            assert computations(statements) <= 60, "who comes together shares the first result"
            statements.clear()
            for offset in range(1, changes + 1):
                status = "SHIPPED" if offset % 2 else "CONFIRMED"
                await asyncio.to_thread(change, shop.dsn, offset, status)
                assert {status_of(each) for each in await crowd.all_hear()} == {status}
            # Beside the changes only the slow beat makes it look again.
            assert changes <= computations(statements) <= changes * 3

    with observed(shop) as (address, statements):
        asyncio.run(follow(address, statements))


def test_a_hundred_different_live_queries_leave_connections_to_others(shop: Database) -> None:
    async def follow(address: str) -> None:
        async with Crowd(address) as crowd:
            queries = [ORDER.replace('"a"', f'"o{number:04}"') for number in range(100)]
            await crowd.come(queries)
            await asyncio.to_thread(change, shop.dsn, 1, "SHIPPED", "o0007")
            heard = await crowd.followers[7].hear()
            assert status_of(heard) == "SHIPPED"
            body = {"query": "{ orders(first: 1) { nodes { orderId } } }"}
            async with httpx.AsyncClient(timeout=20) as client:
                for offset in range(2, 22):
                    await asyncio.to_thread(change, shop.dsn, offset, None)
                    assert "errors" not in (await client.post(address, json=body)).json()

    with observed(shop) as (address, _):
        asyncio.run(follow(address))


def slow_reader(port: int) -> socket.socket:
    """A connection with hardly any room for what comes."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect((LOOPBACK, port))
    return plain


def test_a_slow_client_gets_the_latest_and_holds_up_nobody(shop: Database) -> None:
    changes = 30
    items = [{"sku": "x" * 100_000, "quantity": 1, "unit_price": "1.0000"} for _ in range(10)]
    with psycopg.connect(shop.dsn) as connection:
        insert(connection, "orders", [order("large", items=items)])
    query = 'subscription { order(orderId: "large") { status items { sku } } }'
    follow = json.dumps({"type": "subscribe", "id": "1", "payload": {"query": query}})
    with observed(shop) as (address, _):
        url = address.replace("http", "ws")
        port = httpx.URL(address).port or 0
        given: dict[str, Any] = {
            "subprotocols": [PROTOCOL],
            "compression": None,
            "max_size": None,
            "max_queue": 1,
            "close_timeout": 0.5,
        }
        with (
            connect(url, sock=slow_reader(port), **given) as slow,
            connect(url, **given) as quick,
        ):
            for each in (slow, quick):
                each.send(json.dumps({"type": "connection_init"}))
                each.recv(20)
                each.send(follow)
            assert status_of(json.loads(quick.recv(20))["payload"]) == "PLACED"
            for offset in range(1, changes + 1):
                status = "SHIPPED" if offset % 2 else "CONFIRMED"
                change(shop.dsn, offset, status, "large")
                assert status_of(json.loads(quick.recv(20))["payload"]) == status
            change(shop.dsn, changes + 1, "DELIVERED", "large")
            assert status_of(json.loads(quick.recv(20))["payload"]) == "DELIVERED"
            heard: list[Any] = []
            while not heard or status_of(heard[-1]) != "DELIVERED":
                heard.append(json.loads(slow.recv(20))["payload"])
            assert len(heard) < changes, "what it could not take was not kept for it"
            positions = [parse_position(label(each)["position"]) for each in heard]
            assert all(b.includes(a) for a, b in pairwise(positions))


@pytest.mark.proof
def test_a_thousand_clients_follow_on_one_process(shop: Database, tmp_path: Path) -> None:
    rows = [
        measured(shop, tmp_path, what=what, queries=queries, compressed=compressed)
        for what, queries, compressed in (
            ("one query, compressed", [ORDER] * 1000, True),
            ("one query, plain", [ORDER] * 1000, False),
            ("1,000 queries, plain", [of(number) for number in range(1000)], False),
        )
    ]
    write_page("live", _PAGE, dsn=shop.dsn, rows="\n".join(rows))


def of(number: int) -> str:
    """The live query of one order of the shop's thousand."""
    return ORDER.replace('"a"', f'"o{number:04}"')


def measured(
    shop: Database, folder: Path, *, what: str, queries: list[str], compressed: bool
) -> str:
    """One row of the report: a process, its crowd, a few changes, the end."""
    with api_process(shop.api_dsn, folder) as server:
        server.ask("{ orders(first: 1) { nodes { orderId } } }")
        figures = asyncio.run(_followed(shop, server, queries=queries, compressed=compressed))
    return f"| {what} | " + " | ".join(figures) + " |"


async def _followed(
    shop: Database, server: ApiProcess, *, queries: list[str], compressed: bool
) -> list[str]:
    before_kb = resident_kb(server.pid)
    began_at_s = time.perf_counter()
    async with Crowd(server.address, compressed=compressed) as crowd:
        await crowd.come(queries)
        came_s = time.perf_counter() - began_at_s
        grown_kb = resident_kb(server.pid) - before_kb
        everybody = len({*queries}) == 1
        keys = ["a"] if everybody else [f"o{number:04}" for number in range(0, 1000, 100)]
        times_ms: list[float] = []
        offset = parse_position(
            server.ask("{ position { token } }")["data"]["position"]["token"]
        ).next_offsets[("orders", 0)]
        for turn in range(20):
            status = ("SHIPPED", "CONFIRMED")[turn % 2]
            key = keys[turn // 2 % len(keys)]
            if everybody:
                await asyncio.to_thread(change, shop.dsn, offset + turn, status, key)
                began_at_s = time.perf_counter()
                told = await crowd.all_hear()
            else:
                await asyncio.to_thread(change, shop.dsn, offset + turn, status, key)
                began_at_s = time.perf_counter()
                told = [await crowd.followers[queries.index(of(int(key[1:])))].hear()]
            times_ms.append((time.perf_counter() - began_at_s) * 1000)
            assert {status_of(each) for each in told} == {status}
        busy_kb = resident_kb(server.pid) - before_kb
        ending = asyncio.gather(*(each.hear_the_end() for each in crowd.followers))
        os.kill(server.pid, signal.SIGTERM)
        began_at_s = time.perf_counter()
        assert {*await ending} == {1001}
        end_s = time.perf_counter() - began_at_s
    times_ms.sort()
    return [
        f"{len(queries):,}",
        f"{came_s:.1f}",
        f"{grown_kb / len(queries):.0f}",
        f"{busy_kb / len(queries):.0f}",
        f"{times_ms[len(times_ms) // 2]:.0f}",
        f"{times_ms[-1]:.0f}",
        f"{end_s:.1f}",
    ]


def resident_kb(pid: int) -> int:
    """The memory of a process that is really there, in kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


_PAGE = """# A thousand live clients on one process

Made by `make proof ARGS="-k thousand_clients"` on {day}, {cpus} cores, clients and server and
database on the same machine. Each client has a WebSocket of its own and follows one order; the
process is `viewkeeper api` with its defaults. Every client had every state that was waited for,
and all were closed with 1001 at the end.

- **come**: until all were connected and had their first result, 50 connecting at a time.
- **kB each**: growth of the process's resident memory, per client, after they came; and later,
  after the changes.
- **told**: from the return of the commit until the last client that follows the row has the change
  (clients run in one Python process, whose own work is in the figure), 20 changes.
- **end**: from SIGTERM until the last one was closed.

| what | clients | come s | kB each | kB each later | told ms p50 | told ms max | end s |
|---|---|---|---|---|---|---|---|
{rows}
"""
