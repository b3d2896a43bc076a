"""The crowd of live queries: clients that follow, and the changes that they follow.

A program of its own (`python -m bench.followers`, a job as JSON on stdin, the result as JSON on
stdout), so that it shares no interpreter with the API; its own work is in the delays. A change is
what the worker does: rows, the position and word of it in one transaction. The next one is made
when every client has the last.
"""

import asyncio
import json
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

import psycopg
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from bench.child import cpu_s, memory_mb
from bench.stats import percentile

_PROTOCOL: Final = Subprotocol("graphql-transport-ws")
_QUERY: Final = """subscription Follow($id: String!) { order(orderId: $id) {
  orderId version status customerId currency amount discount paid refunded outstanding } }"""
_ROWS: Final = "UPDATE build_1.orders SET version = version + 1 WHERE order_id = ANY(%s)"
_POSITION: Final = (
    "UPDATE build_1.positions SET next_offset = next_offset + 1"
    " WHERE topic = 'orders' AND partition = 0"
    " RETURNING pg_notify('viewkeeper', 'build_1 orders:0:' || next_offset)"
)
_CONNECTING: Final = 50
_HEAR_S: Final = 60.0
_GRACE_S: Final = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Who follows which order, on which process, and for how long it changes."""

    host: str
    port: int
    pid: int
    dsn: str
    orders: tuple[str, ...]
    warm_changes: int = 3
    seconds: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it. A delay is from the return of the commit until one client has the change."""

    clients: int
    came_s: float
    grown_mb: float
    grown_busy_mb: float
    changes: int
    updates_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_update: float


@dataclass(slots=True)
class _Follower:
    socket: ClientConnection
    version: int

    async def hear(self) -> float:
        """The moment at which it has the next change, and no other."""
        async with asyncio.timeout(_HEAR_S):
            message = json.loads(await self.socket.recv())
        heard_at = time.perf_counter()
        before, self.version = self.version, _version(message)
        if self.version != before + 1:
            raise RuntimeError(f"not the change that was made: {message}")
        return heard_at


async def _run(job: Job) -> Result:
    before_mb, began_at = memory_mb(job.pid)[0], time.perf_counter()
    async with AsyncExitStack() as open_:
        places = asyncio.Semaphore(_CONNECTING)
        followers = await asyncio.gather(
            *(_follow(job, order_id, open_, places) for order_id in job.orders)
        )
        came_s, came_mb = time.perf_counter() - began_at, memory_mb(job.pid)[0]
        database = await open_.enter_async_context(
            await psycopg.AsyncConnection.connect(job.dsn, autocommit=True)
        )
        for _ in range(job.warm_changes):
            await _changed(database, job, followers)
        delays_s, took_s, cpu = await _measured(database, job, followers)
        busy_mb = memory_mb(job.pid)[0]
    return Result(
        clients=len(followers),
        came_s=came_s,
        grown_mb=came_mb - before_mb,
        grown_busy_mb=busy_mb - before_mb,
        changes=len(delays_s) // len(followers),
        updates_per_s=len(delays_s) / took_s,
        p50_ms=percentile(delays_s, 0.5) * 1000,
        p99_ms=percentile(delays_s, 0.99) * 1000,
        cpu_us_per_update=cpu / len(delays_s) * 1e6,
    )


async def _measured(
    database: psycopg.AsyncConnection[Any], job: Job, followers: list[_Follower]
) -> tuple[list[float], float, float]:
    """Every delay, how long it took in all, and the CPU time of the API."""
    delays_s: list[float] = []
    began_at, cpu_before_s = time.perf_counter(), cpu_s(job.pid)
    while not delays_s or time.perf_counter() - began_at < job.seconds:
        delays_s += await _changed(database, job, followers)
    return delays_s, time.perf_counter() - began_at, cpu_s(job.pid) - cpu_before_s


async def _changed(
    database: psycopg.AsyncConnection[Any], job: Job, followers: list[_Follower]
) -> list[float]:
    """Change every order that is followed, and wait until each client has it."""
    async with database.transaction():
        await database.execute(_ROWS, ([*set(job.orders)],))
        await database.execute(_POSITION)
    committed_at = time.perf_counter()
    heard = await asyncio.gather(*(each.hear() for each in followers))
    return [moment - committed_at for moment in heard]


async def _follow(
    job: Job, order_id: str, open_: AsyncExitStack, places: asyncio.Semaphore
) -> _Follower:
    async with places:
        socket = await open_.enter_async_context(
            connect(
                f"ws://{job.host}:{job.port}/graphql",
                subprotocols=[_PROTOCOL],
                compression=None,
                ping_interval=None,
                close_timeout=0.5,
            )
        )
        await socket.send(json.dumps({"type": "connection_init"}))
        await socket.recv()
        payload = {"query": _QUERY, "variables": {"id": order_id}}
        await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
        first = json.loads(await socket.recv())
        if first["type"] != "next" or not first["payload"].get("data", {}).get("order"):
            raise RuntimeError(f"{order_id} cannot be followed: {first}")
        return _Follower(socket, _version(first))


def _version(message: Any) -> int:
    return int(message["payload"]["data"]["order"]["version"])


def run(job: Job) -> Result:
    """Run a job in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "bench.followers"],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        check=False,
        timeout=job.seconds + _GRACE_S,
    )
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr[-2000:])
    return Result(**json.loads(ended.stdout))


def main() -> None:
    """One job from stdin."""
    fields = json.load(sys.stdin)
    job = Job(**{**fields, "orders": tuple(fields["orders"])})
    print(json.dumps(asdict(uvloop.run(_run(job)))))


if __name__ == "__main__":
    main()
