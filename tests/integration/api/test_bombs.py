"""Bombs are refused before the database hears of them, over every transport, with a reason."""

import asyncio
import json
import os
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tests.fixtures.apis import api_process
from tests.fixtures.databases import Database
from tests.fixtures.reports import table_rows, write_page
from tests.integration.api.bombs import FILTERS, HARMLESS, bodies, chunked, documents, large_filters
from tests.integration.api.conftest import Api
from tests.integration.api.shop import busy_shop, stock

CODES = {"QUERY_TOO_COMPLEX", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "BAD_REQUEST"}
CODES |= {"BAD_USER_INPUT", "OPERATION_RESOLUTION_FAILURE"}
MODERN = {"Accept": "application/graphql-response+json"}
PREFLIGHT = {**MODERN, "Viewkeeper-Preflight": "1"}


def refusal(body: dict[str, Any]) -> str:
    """The code of a refusal; there is nothing but errors in it, and they say something."""
    assert set(body) == {"errors"}, body
    for error in body["errors"]:
        assert len(error["message"]) > 10
        assert len(json.dumps(error)) < 5_000, "a bomb is not sent back"
    code: str = body["errors"][0]["extensions"]["code"]
    return code


@pytest.fixture
def quiet(shared_api: Api) -> Iterator[Api]:
    """The API, which must have executed nothing when the test ends."""
    shared_api.data("{ position { build } }")
    shared_api.statements.clear()
    yield shared_api
    assert not [text for text in shared_api.statements if "order_id" in text]
    assert "data" in shared_api.answer("{ position { build } }"), "it is as well as before"


@pytest.mark.parametrize("bomb", documents())
def test_a_bomb_is_refused_over_every_transport(quiet: Api, bomb: str) -> None:
    request = documents()[bomb]
    content = json.dumps(request)
    client: TestClient = quiet.client
    headers = {"Content-Type": "application/json"}
    posted = client.post("/graphql", content=content, headers={**headers, **MODERN})
    assert posted.status_code in (400, 413), posted.text[:500]
    assert refusal(posted.json()) in CODES
    streamed = client.post(
        "/graphql", content=content, headers={**headers, "Accept": "text/event-stream"}
    )
    lines = streamed.text.splitlines()
    told = next((line for line in lines if line.startswith("data: {")), streamed.text)
    assert refusal(json.loads(told.removeprefix("data: "))) in CODES
    if len(content) < 20_000:
        got = client.get(
            "/graphql",
            params={
                name: value if isinstance(value, str) else json.dumps(value)
                for name, value in request.items()
            },
            headers=PREFLIGHT,
        )
        assert got.status_code == 400
    if len(content) < 60_000:
        with client.websocket_connect("/graphql", subprotocols=["graphql-transport-ws"]) as socket:
            socket.send_json({"type": "connection_init"})
            socket.receive_json()
            socket.send_json({"type": "subscribe", "id": "1", "payload": request})
            message = socket.receive_json()
            assert message["type"] == "error", message
            assert refusal({"errors": message["payload"]}) in CODES


@pytest.mark.parametrize("bomb", bodies())
def test_a_body_that_is_no_request_is_refused(quiet: Api, bomb: str) -> None:
    made = bodies()[bomb]
    headers = {**made.headers, **MODERN}
    response = quiet.client.post("/graphql", content=made.content, headers=headers)
    assert response.status_code in (400, 413, 415), response.text[:500]
    assert refusal(response.json()) in CODES


@pytest.mark.parametrize("name", large_filters())
def test_a_filter_that_is_too_large_looks_for_no_rows(quiet: Api, name: str) -> None:
    body = quiet.answer(FILTERS, w=large_filters()[name])
    (error,) = body["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert error["message"].startswith("where")
    assert body.get("data") is None


def test_a_body_whose_length_nobody_told_is_read_to_the_limit_only(quiet: Api) -> None:
    taken = 0

    def piece() -> bytes:
        nonlocal taken
        taken += 1
        return b" " * 10_000

    response = quiet.client.post(
        "/graphql",
        content=chunked(piece, times=1000),
        headers={"Content-Type": "application/json", **MODERN},
    )
    assert response.status_code == 413
    assert "100000 bytes" in response.json()["errors"][0]["message"]


@pytest.mark.proof
def test_bombs_cost_little_and_their_neighbours_less(
    shared_database: Database, tmp_path: Path
) -> None:
    stock(shared_database.dsn, busy_shop())
    with api_process(shared_database.api_dsn, tmp_path) as server:
        rows = [
            (name, code, f"{cost_ms(server.address, server.pid, name, code):.1f}")
            for name, code in codes(server.address).items()
        ]
        alone = asyncio.run(neighbours(server.address))
        with throwing(server.address) as thrown:
            beside = asyncio.run(neighbours(server.address))
    write_page(
        "bombs",
        _PAGE,
        dsn=shared_database.dsn,
        times=TIMES,
        rows=table_rows(rows),
        alone=alone,
        beside=beside,
        ratio=f"{beside.p99_ms / alone.p99_ms:.2f}",
        thrown=thrown[0],
    )


TIMES = 40
_TICKS = os.sysconf("SC_CLK_TCK")


def posted(client: httpx.Client, address: str, name: str, mark: str) -> httpx.Response:
    """A bomb, thrown."""
    if name in bodies():
        made = bodies()[name]
        headers = {**made.headers, **MODERN}
        return client.post(address, content=made.content, headers=headers)
    content = json.dumps(documents(mark)[name])
    headers = {"Content-Type": "application/json", **MODERN}
    return client.post(address, content=content, headers=headers)


def codes(address: str) -> dict[str, str]:
    """Every bomb, and how it is refused."""
    with httpx.Client(timeout=30) as client:
        return {
            name: refusal(posted(client, address, name, "first").json())
            for name in (*documents(), *bodies())
        }


def cost_ms(address: str, pid: int, name: str, code: str) -> float:
    """The processor time of the server for one of them, in the mean of many."""
    with httpx.Client(timeout=30) as client:
        client.post(address, json={"query": HARMLESS})
        before = _ticks(pid)
        for number in range(TIMES):
            assert refusal(posted(client, address, name, f"{number}").json()) == code
    return (_ticks(pid) - before) / _TICKS / TIMES * 1000


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@dataclass(frozen=True, slots=True)
class Wait:
    """How long ordinary queries take."""

    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"p50 {self.p50_ms:.1f}, p99 {self.p99_ms:.1f}"


async def neighbours(address: str, *, many: int = 8, each: int = 250) -> Wait:
    """The median and the 99th percentile of ordinary queries."""
    took_ms: list[float] = []
    body = {"query": "{ orders(first: 20) { nodes { orderId amount items { sku } } } }"}

    async def one(client: httpx.AsyncClient) -> None:
        for _ in range(each):
            began_at_s = time.perf_counter()
            answer = (await client.post(address, json=body)).json()
            took_ms.append((time.perf_counter() - began_at_s) * 1000)
            assert "errors" not in answer

    async with httpx.AsyncClient(timeout=30) as client:
        await asyncio.gather(*(one(client) for _ in range(many)))
    cuts = statistics.quantiles(took_ms, n=100)
    return Wait(cuts[49], cuts[98])


class throwing:  # noqa: N801 - reads as a verb where it is used
    """Throws every bomb in turn, twenty a second, beside whatever else happens."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._throw)
        self._thrown = [0]

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self._thrown

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _throw(self) -> None:
        names = [*documents(), *bodies()]
        with httpx.Client(timeout=30) as client:
            while not self._enough.wait(0.05):
                number = self._thrown[0]
                name = names[number % len(names)]
                refusal(posted(client, self._address, name, f"beside{number}").json())
                self._thrown[0] += 1


_PAGE = """# What bombs cost

Made by `make proof ARGS="-k bombs_cost_little"` on {day}, {cpus} cores. Each bomb is a POST to
`viewkeeper api` with its default limits, {times} times, each time with a text that was never sent
before. **CPU** is the processor time of the whole API process, reading the request and writing the
answer included. That no statement reaches the database is asserted by
`tests/integration/api/test_bombs.py`, which `make test` runs.

| bomb | refused as | CPU, ms |
|---|---|---|
{rows}

Neighbours: 8 clients asking for 20 orders with their items, as fast as they can. Alone, in ms:
{alone}. While {thrown} bombs of all kinds in turn came in, twenty a second at most: {beside}.
**p99 with bombs ÷ without: {ratio}.**
"""
