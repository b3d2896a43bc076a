"""The load generator: keep-alive HTTP/1.1 connections that each wait for one answer and ask again.

A program of its own (`python -m bench.load`, a job as JSON on stdin, the result as JSON on stdout),
so that it shares no interpreter with what it measures; raw sockets, so that it is not what is
measured. Every answer is checked: status 200, the marker in it, no errors; the first answer to each
body is parsed and its rows are counted.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any, Final, cast

import orjson
import uvloop

from bench.stats import percentile

HEAD_END: Final = b"\r\n\r\n"
GRACE_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to ask, how wide and how long. An answer must hold `marker` at least `rows` times."""

    host: str
    port: int
    bodies: tuple[str, ...]
    marker: str
    rows: int
    path: str = "/graphql"
    connections: int = 16
    warm_s: float = 1.0
    seconds: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    body_bytes: int


class BadAnswerError(RuntimeError):
    """An answer was not what was asked for. The message holds its beginning."""


@dataclass(slots=True)
class _Tally:
    job: Job
    counting_from: float
    until: float
    requests: list[bytes]
    latencies_s: list[float] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    numbers: Any = field(default_factory=count)
    body_bytes: int = 0


class _Connection(asyncio.Protocol):
    def __init__(self, tally: _Tally, done: asyncio.Future[None]) -> None:
        self._tally = tally
        self._done = done
        self._buffer = bytearray()
        self._length: int | None = None
        self._which = 0
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._marker = tally.job.marker.encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(BadAnswerError(f"the server closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._length is None:
            self._read_head()
        if self._length is not None and len(self._buffer) >= self._length:
            self._answered()

    def _ask(self) -> None:
        assert self._transport is not None
        self._which = next(self._tally.numbers) % len(self._tally.requests)
        self._sent_at = time.perf_counter()
        self._transport.write(self._tally.requests[self._which])

    def _read_head(self) -> None:
        end = self._buffer.find(HEAD_END)
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        _, found, rest = head.partition(b"\r\ncontent-length:")
        if not head.startswith(b"http/1.1 200") or not found:
            self._fail("is not a 200 with a length")
            return
        del self._buffer[: end + len(HEAD_END)]
        self._length = int(rest.partition(b"\r\n")[0])

    def _answered(self) -> None:
        now = time.perf_counter()
        tally = self._tally
        if self._buffer.find(b'"errors"') >= 0 or self._buffer.find(self._marker) < 0:
            self._fail("has errors or no data")
            return
        if self._which not in tally.seen:
            self._check_rows()
        if now >= tally.counting_from:
            tally.latencies_s.append(now - self._sent_at)
            tally.body_bytes += len(self._buffer)
        self._buffer.clear()
        self._length = None
        if self._done.done():
            return
        if now >= tally.until:
            self._done.set_result(None)
        else:
            self._ask()

    def _check_rows(self) -> None:
        self._tally.seen.add(self._which)
        answer = orjson.loads(self._buffer)
        if not answer.get("data") or self._buffer.count(self._marker) < self._tally.job.rows:
            self._fail(f"has fewer than {self._tally.job.rows} rows")

    def _fail(self, why: str) -> None:
        if not self._done.done():
            start = bytes(self._buffer[:600]).decode(errors="replace")
            self._done.set_exception(BadAnswerError(f"an answer {why}: {start}"))


async def _run(job: Job) -> Result:
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    counting_from = start + job.warm_s
    tally = _Tally(
        job=job,
        counting_from=counting_from,
        until=counting_from + job.seconds,
        requests=[_request(job, body) for body in job.bodies],
    )
    waits = []
    for _ in range(job.connections):
        done: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(
            lambda done=done: _Connection(tally, done),  # type: ignore[misc]
            job.host,
            job.port,
        )
        waits.append(done)
    async with asyncio.timeout(job.warm_s + job.seconds + GRACE_S):
        await asyncio.gather(*waits)
    seconds = time.perf_counter() - counting_from
    answered = len(tally.latencies_s)
    return Result(
        requests=answered,
        rate=answered / seconds,
        p50_ms=percentile(tally.latencies_s, 0.5) * 1000,
        p99_ms=percentile(tally.latencies_s, 0.99) * 1000,
        body_bytes=tally.body_bytes // answered,
    )


def _request(job: Job, body: str) -> bytes:
    content = body.encode()
    head = (
        f"POST {job.path} HTTP/1.1\r\nHost: {job.host}:{job.port}\r\n"
        "Content-Type: application/json\r\nAccept: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def run(job: Job) -> Result:
    """Run a job in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        check=False,
        timeout=job.warm_s + job.seconds + 2 * GRACE_S,
    )
    if ended.returncode != 0:
        raise BadAnswerError(ended.stderr[-2000:])
    return Result(**json.loads(ended.stdout))


def main() -> None:
    """One job from stdin."""
    fields = json.load(sys.stdin)
    job = Job(**{**fields, "bodies": tuple(fields["bodies"])})
    print(json.dumps(asdict(uvloop.run(_run(job)))))


if __name__ == "__main__":
    main()
