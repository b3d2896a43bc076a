"""Customers side by side: what one is told never depends on what the others have.

Each operation is asked twice with the same token: of a shop full of customers, and of one in which
nobody but the asker has ever bought anything. Not one byte of the answers may differ: no row, no
count, no page's end, no error tells that there is anybody else.
"""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app, graphql_schema
from tests.fixtures.databases import Database, DatabaseServer
from tests.fixtures.reports import write_page
from tests.integration.api.compiled.hostile import (
    CUSTOMERS,
    hostile_shop,
    node_ids,
    open_shop,
    pools,
)
from tests.integration.api.compiled.operations import Maker
from tests.integration.api.conftest import settings
from tests.integration.api.shop import AGGREGATES
from tests.integration.api.test_callers import RULES, SECRET, bearing, customer, signed

WIDE = {
    "api_page_default": 4,
    "api_page_most": 40,
    "api_count_cap": 9,
    "api_max_document_bytes": 10**6,
    "api_max_tokens": 20_000,
    "api_max_depth": 50,
    "api_max_aliases": 10**4,
    "api_max_root_fields": 100,
    "api_max_directives": 10**4,
    "api_max_cost": 10**9,
}
NAMES = CUSTOMERS[:2]


@contextmanager
def guarded(dsn: str) -> Iterator[TestClient]:
    """An API that wants tokens and hardly knows a limit."""
    given = {**WIDE, **RULES, "api_jwt_secret": SECRET}
    with TestClient(create_app(settings(dsn, **given))) as client:
        yield client


class World:
    """The full shop, and for each customer one without the others."""

    def __init__(self, full: TestClient, alone: dict[str, TestClient], full_dsn: str) -> None:
        self.full = full
        self.alone = alone
        self.full_dsn = full_dsn
        self.pools = pools(hostile_shop(), node_ids(full_dsn))


@pytest.fixture(scope="module")
def world(database_server: DatabaseServer) -> Iterator[World]:
    """Three databases, and an API on each."""
    with ExitStack() as at_end:

        def shop() -> Database:
            made = database_server.create(template=database_server.template.name)
            at_end.callback(database_server.drop, made)
            open_shop(made.dsn)
            return made

        full = shop()
        alone = {}
        for name in NAMES:
            lonely = shop()
            leave_only(lonely.dsn, name)
            alone[name] = at_end.enter_context(guarded(lonely.api_dsn))
        yield World(at_end.enter_context(guarded(full.api_dsn)), alone, full.dsn)


def leave_only(dsn: str, name: str) -> None:
    """Take everybody else out of a shop: orders, payments, and what they add up to."""
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM build_1.orders WHERE customer_id <> %s", (name,))
        connection.execute(
            "DELETE FROM build_1.payments AS p WHERE NOT EXISTS"
            " (SELECT FROM build_1.orders AS o WHERE o.order_id = p.order_id)"
        )
        connection.execute("TRUNCATE build_1.customer_totals, build_1.daily_sales")
        for statement in AGGREGATES:
            connection.execute(statement.encode())


def told(client: TestClient, token: str, query: str, variables: dict[str, Any]) -> str:
    """What an answer says of the data; errors in one order, without the ids of requests."""
    body = client.post(
        "/graphql", json={"query": query, "variables": variables}, headers=bearing(token)
    ).json()
    errors = [
        {**each, "extensions": {**each["extensions"], "requestId": None}}
        for each in body.get("errors", ())
    ]
    return json.dumps([body.get("data"), sorted(map(json.dumps, errors))])


def compare(world: World, name: str, *, seed: int, count: int) -> int:
    """Ask both; how many operations tell an operator something else."""
    maker = Maker(graphql_schema(), world.pools, seed)
    token, hidden = customer(name), 0
    operation = maker.operation()
    for number in range(count):
        operation = maker.operation() if number % 2 else maker.varied(operation)
        query, variables = operation.text(), operation.variables
        together = told(world.full, token, query, variables)
        assert together == told(world.alone[name], token, query, variables), (query, variables)
        hidden += together != told(world.full, signed(), query, variables)
    return hidden


def side_by_side(world: World, *, count: int, seed: int) -> int:
    """All customers at once, on the same few connections, and an operator among them.

    How many operations tell the operator something else.
    """
    enough = threading.Event()

    def oversee() -> None:
        query = "{ orders { totalCount } dailySales { totalCount } }"
        while not enough.wait(0.02):
            assert "9" in told(world.full, signed(), query, {}), "the operator sees all, capped"

    with ThreadPoolExecutor(len(NAMES) + 1) as threads:
        overseeing = threads.submit(oversee)
        try:
            asking = [
                threads.submit(compare, world, name, seed=seed + number, count=count)
                for number, name in enumerate(NAMES)
            ]
            hidden = [each.result() for each in asking]
        finally:
            enough.set()
        overseeing.result()
    assert min(hidden) > count // 10, "most of what is asked has something to hide"
    return sum(hidden)


def test_nothing_tells_a_customer_of_the_others(world: World) -> None:
    side_by_side(world, count=100, seed=1)


@pytest.mark.proof
def test_nothing_tells_a_customer_of_the_others_in_many_operations(world: World) -> None:
    hidden = sum(side_by_side(world, count=MANY, seed=seed) for seed in SEEDS)
    write_page(
        "tenants",
        _PAGE,
        dsn=world.full_dsn,
        customers=len(NAMES),
        operations=len(NAMES) * MANY * len(SEEDS),
        hidden=hidden,
    )


MANY = 1_000
SEEDS = range(100, 200, 10)
_PAGE = """# Customers side by side

`make proof ARGS="-k customer_of_the_others"`, {day}, {cpus} cores: **{operations:,} operations at
random, 0 differences**, by {customers} customers at once, with an operator on the same connections.
Each was asked of a shop full of customers and of one in which nobody but the asker ever bought
anything: not one byte of data or errors differed. {hidden:,} of them told the operator something
else, so there was something to hide.
"""
