"""Serving: the same queries at 16 connections to the API and to a stock Strawberry service.

One server process each on the same database, rounds in turn. Another service joins by a line in
`SERVICES`: it needs a command and the same field names, or queries of its own.
"""

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from bench.child import Child, ChildFailedError, memory_mb
from bench.load import Job, Result, run
from bench.peers import peers_python
from bench.stage import Database, Stage, script
from bench.throughput import Say
from dev.ports import LOOPBACK, free_port

READY_TIMEOUT_S: Final = 60.0
LOOK_EVERY_S: Final = 0.1
SAMPLED_ORDERS: Final = 500
STOCK_DATABASE_VARIABLE: Final = "BENCH_STOCK_DATABASE_URL"

_ROW: Final = (
    "orderId version status customerId currency amount discount items { sku quantity unitPrice }"
    " paid refunded outstanding placedAt updatedAt"
)
_PAYMENTS: Final = (
    " payments(first: 20) { nodes { paymentId status amount refundedAmount method occurredAt } }"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of query: its name, its bodies (asked in turn), and the rows of each answer."""

    name: str
    bodies: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Service:
    """A GraphQL server: how it is started on a port, and what is worth saying about it."""

    name: str
    does: str
    command: Callable[[int], list[str]]
    settings: Callable[[Database, int], Mapping[str, str]]
    path: str = "/graphql"


VIEWKEEPER: Final = Service(
    name="viewkeeper",
    does="consistency labels and the position of its snapshot in every answer",
    command=lambda _: [str(script("viewkeeper")), "api"],
    settings=lambda database, port: {
        "VIEWKEEPER_DATABASE_URL": database.dsn,
        "VIEWKEEPER_API_DATABASE_URL": database.reader_dsn,
        "VIEWKEEPER_API_HOST": LOOPBACK,
        "VIEWKEEPER_API_PORT": str(port),
        "VIEWKEEPER_API_PAGE_MOST": "1000",
    },
)

STOCK: Final = Service(
    name="stock Strawberry",
    does="SQLAlchemy's async ORM and data loaders, no labels",
    command=lambda port: [
        *(str(peers_python()), "-m", "uvicorn", "bench.stock:app", "--host", LOOPBACK),
        *("--port", str(port), "--log-level", "warning", "--no-access-log"),
    ],
    settings=lambda database, _: {STOCK_DATABASE_VARIABLE: database.dsn},
    path="/graphql/",
)

SERVICES: Final = (VIEWKEEPER, STOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSample:
    """One service asked for one shape in one round."""

    service: str
    shape: str
    result: Result
    rss_mb: float


class Running:
    """A started service that answers."""

    def __init__(self, stage: Stage, service: Service, database: Database) -> None:
        self.service = service
        self.port = free_port()
        self.child: Child = stage.child(
            service.name,
            service.command(self.port),
            environment=service.settings(database, self.port),
        )

    def wait_ready(self) -> None:
        """Return when it answers a query; ChildFailedError: it ended, or time is up."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                self.ask("{ __typename }")
            except (OSError, http.client.HTTPException, ValueError) as error:
                if time.monotonic() > deadline or self.child.ends_within(LOOK_EVERY_S):
                    raise ChildFailedError(self.child.report(f"does not answer: {error}")) from None
            else:
                return

    def ask(self, query: str, variables: Mapping[str, Any] | None = None) -> Any:
        """The data of one answer. ValueError: it is not a 200, or has errors."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)
        try:
            return ask(connection, self.service.path, query, variables)
        finally:
            connection.close()


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    query: str,
    variables: Mapping[str, Any] | None = None,
) -> Any:
    """The data of one answer over an open connection. ValueError: no 200, or errors."""
    body = json.dumps({"query": query, "variables": variables or {}})
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    answer = json.loads(content) if response.status == 200 else {"errors": content[:500]}
    if answer.get("errors"):
        raise ValueError(f"{response.status}: {answer['errors']!r}")
    return answer["data"]


def shapes(database: Database, *, full: bool) -> list[Shape]:
    """The kinds of queries, over orders that exist."""
    with psycopg.connect(database.dsn) as connection:
        ids = [
            row[0]
            for row in connection.execute(
                "SELECT order_id FROM build_1.orders WHERE visible ORDER BY md5(order_id) LIMIT %s",
                (SAMPLED_ORDERS,),
            )
        ]
        statuses = {
            row[0]: row[1]
            for row in connection.execute(
                "SELECT status, count(*) FROM build_1.orders WHERE visible GROUP BY status"
            )
        }

    def page(name: str, size: int, fields: str) -> Shape:
        enough = sorted(status for status, rows in statuses.items() if rows >= size)
        if not enough:
            raise RuntimeError(f"no status has {size} orders: the log is too short for {name}")
        return _page(name, size, fields, enough)

    one = f"query One($id: String!) {{ order(orderId: $id) {{ {_ROW} }} }}"
    found = [
        Shape("one row", tuple(_body(one, {"id": order_id}) for order_id in ids), 1),
        page("20 rows", 20, _ROW),
        page("100 rows", 100, _ROW),
        page("100 rows with payments", 100, _ROW + _PAYMENTS),
    ]
    return [*found, page("1,000 rows", 1000, _ROW)] if full else found


def _page(name: str, size: int, fields: str, statuses: Sequence[str]) -> Shape:
    query = (
        "query Page($status: OrderStatus!) {"
        f" orders(first: {size}, where: {{status: {{eq: $status}}}})"
        f" {{ nodes {{ {fields} }} pageInfo {{ hasNextPage endCursor }} }} }}"
    )
    return Shape(name, tuple(_body(query, {"status": status}) for status in statuses), size)


def _body(query: str, variables: Mapping[str, Any]) -> str:
    return json.dumps({"query": query, "variables": variables}, separators=(",", ":"))


def rounds(
    stage: Stage,
    database: Database,
    services: Sequence[Service],
    wanted: Sequence[Shape],
    *,
    count: int,
    seconds: float,
    say: Say,
) -> list[list[ServingSample]]:
    """Every shape at every service, once per round; each round begins with another service."""
    measured = []
    with ExitStack() as stack:
        running = []
        for service in services:
            started = Running(stage, service, database)
            stack.callback(started.child.stop)
            started.wait_ready()
            running.append(started)
        for number in range(count):
            shift = number % len(running)
            turns = [*running[shift:], *running[:shift]]
            measured.append([_sample(at, shape, seconds, say) for shape in wanted for at in turns])
    return measured


def _sample(at: Running, shape: Shape, seconds: float, say: Say) -> ServingSample:
    job = Job(
        host=LOOPBACK,
        port=at.port,
        path=at.service.path,
        bodies=shape.bodies,
        marker='"orderId"',
        rows=shape.rows,
        seconds=seconds,
    )
    result = run(job)
    say(f"  {shape.name}: {at.service.name} {result.rate:,.0f}/s, p99 {result.p99_ms:.1f} ms")
    return ServingSample(
        service=at.service.name,
        shape=shape.name,
        result=result,
        rss_mb=memory_mb(at.child.pid)[0],
    )
