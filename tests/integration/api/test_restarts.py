"""Rolling restarts behind one listening socket: no request fails, though none is repeated."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest

from tests.fixtures.apis import ApiProcess, api_process
from tests.fixtures.databases import REPOSITORY, Database
from tests.fixtures.waiting import eventually
from tests.integration.api.shop import Shop, order, position, stock
from tests.integration.api.shop import insert as insert_rows

REPORT: Final = REPOSITORY / "docs" / "proof" / "restarts.md"
QUERY: Final = "{ orders(first: 5) { nodes { orderId status } } }"
WORKERS: Final = 2
RESTARTED_S: Final = 180.0


@dataclass
class Load:
    """Clients of three manners. None of them repeats a request: what fails is kept."""

    address: str
    most_rest_s: float
    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    connections: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, *, busy: int, thinking: int, strangers: int) -> None:
        """Ask until `stopping`: without a rest, with rests, and by a new connection each time."""
        async with asyncio.TaskGroup() as group:
            for number in range(busy):
                group.create_task(self._kept("busy", number, most_rest_s=0.0))
            for number in range(thinking):
                group.create_task(self._kept("thinking", number, most_rest_s=self.most_rest_s))
            for number in range(strangers):
                group.create_task(self._stranger(number))

    async def _kept(self, manner: str, number: int, *, most_rest_s: float) -> None:
        rests = random.Random(f"{manner} {number}")
        async with self._client() as client:
            while not self.stopping.is_set():
                await self._ask(client, manner)
                await self._rest(rests.uniform(0.0, most_rest_s))

    async def _stranger(self, number: int) -> None:
        rests = random.Random(f"stranger {number}")
        while not self.stopping.is_set():
            async with self._client() as client:
                await self._ask(client, "stranger")
            await self._rest(rests.uniform(0.0, 0.1))

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=1))

    async def _ask(self, client: httpx.AsyncClient, manner: str) -> None:
        opened = False

        async def trace(event: str, _: dict[str, Any]) -> None:
            nonlocal opened
            opened |= event == "connection.connect_tcp.complete"

        way = "GET" if sum(self.answered.values()) % 2 else "POST"
        given: dict[str, Any] = {"json": {"query": QUERY}}
        if way == "GET":
            given = {"params": {"query": QUERY}, "headers": {"Viewkeeper-Preflight": "1"}}
        began_at_s = time.perf_counter()
        try:
            response = await client.request(way, self.address, extensions={"trace": trace}, **given)
        except httpx.TransportError as error:
            self.failed.append(f"{way}, {manner}: {error!r}")
            return
        self.longest_s = max(self.longest_s, time.perf_counter() - began_at_s)
        self.connections += opened
        if response.status_code != 200 or "errors" in response.json():
            self.failed.append(f"{way}, {manner}: {response.status_code} {response.text}")
        self.answered[manner] += 1


@pytest.fixture
def shop(database: Database) -> Database:
    """A hundred orders."""
    stock(database.dsn, Shop([order(f"o{number:04}") for number in range(100)]))
    with psycopg.connect(database.dsn) as connection:
        insert_rows(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
    return database


def restart(server: ApiProcess, send: Callable[[int, signal.Signals], None]) -> float:
    """Ask for a rolling restart, and return when new workers serve alone; the seconds it took."""
    served, ended = (server.log.count(f"event={word} ") for word in ("serving", "ended"))
    began_at_s = time.perf_counter()
    send(server.pid, signal.SIGHUP)
    eventually(
        lambda: (
            server.log.count("event=serving ") >= served + WORKERS
            and server.log.count("event=ended ") >= ended + WORKERS
        ),
        RESTARTED_S,
        "every worker was replaced",
    )
    return time.perf_counter() - began_at_s


async def under_load(
    server: ApiProcess, load: Load, *, restarts: int, **clients: int
) -> list[float]:
    """Restart again and again while clients ask; the seconds that each took."""
    asking = asyncio.create_task(load.run(**clients))
    took_s = []
    try:
        for turn in range(restarts):
            # To the process that was started, and to it with all its workers: both are done.
            send = os.killpg if turn % 2 else os.kill
            before = load.answered.total()
            took_s.append(await asyncio.to_thread(restart, server, send))
            assert load.answered.total() > before, "nobody asked meanwhile"
    finally:
        load.stopping.set()
        await asking
    return took_s


def test_rolling_restarts_under_load_fail_no_request(shop: Database, tmp_path: Path) -> None:
    with api_process(
        shop.api_dsn,
        tmp_path,
        workers=WORKERS,
        api_drain_s=0.3,
        # So that this machine may be slow.
        api_acquire_timeout_s=20,
    ) as server:
        load = Load(server.address, most_rest_s=1.0)
        asyncio.run(under_load(server, load, restarts=2, busy=1, thinking=6, strangers=1))
        assert server.stop() == 0
    assert not load.failed


@pytest.mark.proof
def test_twenty_rolling_restarts_under_load_fail_no_request(shop: Database, tmp_path: Path) -> None:
    patience = {"api_drain_s": 1.0, "api_acquire_timeout_s": 10}
    with api_process(shop.api_dsn, tmp_path, workers=WORKERS, **patience) as server:
        load = Load(server.address, most_rest_s=4.0)
        took_s = asyncio.run(
            under_load(server, load, restarts=20, busy=8, thinking=16, strangers=4)
        )
        assert server.stop() == 0
    with psycopg.connect(shop.dsn) as connection:
        (day,) = connection.execute("SELECT current_date::text").fetchone() or ()
    rows = "\n".join(
        f"| {manner} | {load.answered[manner]:,} |" for manner in sorted(load.answered)
    )
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(
        _PAGE.format(
            day=day,
            cpus=os.cpu_count(),
            load=os.getloadavg()[0],
            restarts=len(took_s),
            failed=len(load.failed),
            connections=f"{load.connections:,}",
            longest_ms=f"{load.longest_s * 1000:,.0f}",
            mean_s=f"{sum(took_s) / len(took_s):.1f}",
            most_s=f"{max(took_s):.1f}",
            rows=rows,
        )
    )
    assert not load.failed


def test_a_process_alone_that_is_told_to_restart_ends_in_order(
    shop: Database, tmp_path: Path
) -> None:
    # Under nohup the tests pass on to it that it be unheard.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with api_process(shop.api_dsn, tmp_path) as server, httpx.Client(timeout=20) as client:
            assert client.post(server.address, json={"query": QUERY}).status_code == 200
            assert server.stop(signal.SIGHUP) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "event=ended " in server.log


def test_answers_on_the_way_out_are_the_last_on_their_connection(
    shop: Database, tmp_path: Path
) -> None:
    with (
        api_process(shop.api_dsn, tmp_path, api_drain_s=1.5) as server,
        httpx.Client(timeout=20) as client,
    ):
        assert "connection" not in client.post(server.address, json={"query": QUERY}).headers
        os.kill(server.pid, signal.SIGTERM)
        eventually(
            lambda: httpx.get(f"{server.base}/readyz", timeout=20).status_code == 503,
            1.4,
            "it is not ready",
        )
        assert client.post(server.address, json={"query": QUERY}).headers["connection"] == "close"


_PAGE = """# Rolling restarts under load

Made by `make proof ARGS="-k twenty_rolling_restarts"` on {day}, {cpus} cores, clients and server
and database on the same machine, which had other work to do ({load:.0f} processes waited for its
cores at the end): `viewkeeper api --workers 2` with its defaults, but for 10 s to wait for a
connection to the database, was told to restart {restarts} times by SIGHUP, to its first process and
to the whole group in turn, each time as soon as both workers were replaced.

No client repeats a request. Half of them are GETs, half POSTs; whatever is not a whole answer is a
failed request: a kept connection that was closed under a request too.

| clients | requests answered |
|---|---|
{rows}

- **busy** ask without a rest on one kept connection each, **thinking** ones rest up to 4 s between
  two requests on theirs, a **stranger** comes by a new connection each time.
- {failed} failed requests; {connections} connections were opened; the longest answer took
  {longest_ms} ms.
- A restart took {mean_s} s in the mean, {most_s} s at most.
"""
