"""Serving: the same queries at 16 connections to the API, to stock Strawberry, and to PostGraphile.

One server process each on the same database, rounds in turn. Another service joins by a line in
`SERVICES`: it needs a command and the same field names, or a dialect of its own.
"""

import http.client
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from bench import node_peers
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
    "orderId version status customerId currency amount discount"
    " paid refunded outstanding placedAt updatedAt"
)
_PAYMENT: Final = "nodes { paymentId status amount refundedAmount method occurredAt }"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a service spells the same queries. `{fields}` and `{size}` are put in."""

    one: str
    page: str
    items: str
    payments: str


OURS: Final = Dialect(
    one="query One($id: String!) {{ order(orderId: $id) {{ {fields} }} }}",
    page="query Page($status: OrderStatus!) {{"
    " orders(first: {size}, where: {{status: {{eq: $status}}}})"
    " {{ nodes {{ {fields} }} pageInfo {{ hasNextPage endCursor }} }} }}",
    items="items { sku quantity unitPrice }",
    payments=f"payments(first: 20) {{ {_PAYMENT} }}",
)
POSTGRAPHILES: Final = Dialect(
    one="query One($id: String!) {{ order: orderByOrderId(orderId: $id) {{ {fields} }} }}",
    page="query Page($status: String!) {{"
    " orders: allOrders(first: {size}, condition: {{status: $status, visible: true}})"
    " {{ nodes {{ {fields} }} pageInfo {{ hasNextPage endCursor }} }} }}",
    items="items",
    payments=f"payments: paymentsByOrderId(first: 20) {{ {_PAYMENT} }}",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of query: its name, the variables asked with in turn, and the rows of each answer."""

    name: str
    variables: tuple[Mapping[str, str], ...]
    rows: int
    with_payments: bool = False

    def bodies(self, dialect: Dialect) -> tuple[str, ...]:
        """The bodies of its requests."""
        more = [dialect.payments] if self.with_payments else []
        fields = " ".join([_ROW, dialect.items, *more])
        template = dialect.one if self.rows == 1 else dialect.page
        query = template.format(fields=fields, size=self.rows)
        return tuple(_body(query, each) for each in self.variables)


@dataclass(frozen=True, slots=True)
class Service:
    """A GraphQL server: how it is started on a port, and what is worth saying about it."""

    name: str
    does: str
    command: Callable[[int], list[str]]
    settings: Callable[[Database, int], Mapping[str, str]]
    path: str = "/graphql"
    dialect: Dialect = OURS


def _api_settings(database: Database, port: int) -> Mapping[str, str]:
    return {
        "VIEWKEEPER_DATABASE_URL": database.dsn,
        "VIEWKEEPER_API_DATABASE_URL": database.reader_dsn,
        "VIEWKEEPER_API_HOST": LOOPBACK,
        "VIEWKEEPER_API_PORT": str(port),
        "VIEWKEEPER_API_PAGE_MOST": "1000",
        # Nobody else in the comparison writes a line for every request.
        "VIEWKEEPER_API_LOG_REQUESTS": "false",
    }


VIEWKEEPER: Final = Service(
    name="viewkeeper",
    does="consistency labels and the position of its snapshot in every answer",
    command=lambda _: [str(script("viewkeeper")), "api"],
    settings=_api_settings,
)

UNLABELLED: Final = Service(
    name="viewkeeper without labels",
    does="the same, but for the labels: no mode of the product",
    command=lambda _: [sys.executable, "-m", "bench.unlabelled"],
    settings=_api_settings,
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

POSTGRAPHILE: Final = Service(
    name="PostGraphile",
    does="version 5 with its Amber preset, `items` whole, no labels",
    command=lambda _: node_peers.command(),
    settings=lambda database, port: {
        "BENCH_POSTGRAPHILE_DATABASE_URL": database.dsn,
        "BENCH_PORT": str(port),
        "GRAPHILE_ENV": "production",
        "NODE_ENV": "production",
    },
    dialect=POSTGRAPHILES,
)


SERVICES: Final = (VIEWKEEPER, STOCK, POSTGRAPHILE, UNLABELLED)


def services() -> tuple[Service, ...]:
    """Those that this machine can run."""
    has_node = node_peers.prepare()
    return tuple(each for each in SERVICES if has_node or each is not POSTGRAPHILE)


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
    *,
    consistency: Mapping[str, Any] | None = None,
) -> Any:
    """The data of one answer over an open connection. ValueError: no 200, or errors."""
    extensions = {"extensions": {"consistency": consistency}} if consistency else {}
    body = json.dumps({"query": query, "variables": variables or {}, **extensions})
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

    def page(name: str, size: int, *, with_payments: bool = False) -> Shape:
        enough = sorted(status for status, rows in statuses.items() if rows >= size)
        if not enough:
            raise RuntimeError(f"no status has {size} orders: the log is too short for {name}")
        variables = tuple({"status": status} for status in enough)
        return Shape(name, variables, size, with_payments)

    found = [
        Shape("one row", tuple({"id": order_id} for order_id in ids), 1),
        page("20 rows", 20),
        page("100 rows", 100),
        page("100 rows with payments", 100, with_payments=True),
    ]
    return [*found, page("1,000 rows", 1000)] if full else found


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
        bodies=shape.bodies(at.service.dialect),
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
