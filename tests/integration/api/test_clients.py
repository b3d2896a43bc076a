"""The clients that people have, from their registries: pages, filters, and live queries that go on.

Each walks through pages, filters, and follows a live query while its server is ended politely,
ended at once, and started again. Positions never go back, the final state arrives, and nothing
unchanged is sent twice. All go through it together, so that the server restarts for all at once.
"""

import hashlib
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fixtures.apis import ApiProcess, api_process
from tests.fixtures.clients import Client, Clients
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.api.shop import Shop, busy_shop, insert, order, position, stock
from tests.integration.api.test_live import change
from views.positions import parse_position

FOLLOWED = "o001"
SHOP = Shop([*busy_shop(orders=40).orders, order("z", status="SHIPPED")])
SCRIPTS = {
    "apollo": "apollo.mjs",
    "gql": "follow_gql.py",
    "graphql-sse": "graphql-sse.mjs",
    "graphql-ws": "graphql-ws.mjs",
    "relay": "relay.mjs",
    "urql": "urql.mjs",
}
CACHING = ("apollo", "relay")
STATES = ["PLACED", "CONFIRMED", "SHIPPED", "DELIVERED"]


@dataclass(slots=True)
class Story:
    """What one client told, until it told something wrong."""

    name: str
    client: Client
    pages: dict[str, list[str]] = field(default_factory=dict)
    filtered: list[str] = field(default_factory=list)
    live: list[dict[str, Any]] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    failure: AssertionError | None = None

    def go_on(self, step: Callable[["Story"], None]) -> None:
        """One more step; none after a failure, which its own test shows."""
        try:
            if self.failure is None:
                step(self)
        except AssertionError as failure:
            self.failure = failure
            self.client.close()

    def walk(self) -> None:
        """Pages and filter, which it does by itself."""
        self.pages = self.client.says("pages")
        self.filtered = self.client.says("filter")["ids"]
        if self.name == "relay":
            assert self.client.says("node")["orderId"] == FOLLOWED

    def hear(self) -> None:
        """One result of the live query, and what its cache then shows."""
        self.live.append(self.client.says("live"))
        # Relay says when its store changes; the first result changes nothing.
        if self.name == "apollo" or (self.name == "relay" and len(self.live) > 1):
            self.cached.append(self.client.says("cache")["status"])


@pytest.fixture(scope="module")
def server(
    shared_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiProcess]:
    """An API on a busy shop."""
    stock(shared_database.dsn, SHOP)
    with psycopg.connect(shared_database.dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
        connection.execute(
            "UPDATE build_1.orders SET status = 'PLACED' WHERE order_id = %s", (FOLLOWED,)
        )
    with api_process(shared_database.api_dsn, tmp_path_factory.mktemp("api")) as server:
        yield server


class Shopkeeper:
    """Changes the followed order, and restarts the server."""

    def __init__(self, server: ApiProcess, database: Database) -> None:
        self._server = server
        self._database = database
        self._offset = 0

    def change(self, status: str | None) -> None:
        """The followed order changes, or events arrive that leave it as it is."""
        self._offset += 1
        change(self._database.dsn, self._offset, status, key=FOLLOWED)

    def restart(self, how: signal.Signals, *, meanwhile: str | None, followers: int) -> None:
        """The server ends and comes again; wait until all who followed follow again."""
        self._server.stop(how)
        self.change(meanwhile)
        self._server.start()
        eventually(
            lambda: self._server.metric("viewkeeper_api_live_followers") == followers,
            30,
            "the clients follow again",
        )
        # As long as a first result takes: one that is sent twice would come before the next.
        self._server.ask("{ orders { totalCount } }")


@pytest.fixture(scope="module")
def stories(
    clients: Clients,
    server: ApiProcess,
    shared_database: Database,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Story]]:
    """What every client told of the same events."""
    folder: Path = tmp_path_factory.mktemp("errors")
    shopkeeper = Shopkeeper(server, shared_database)
    with ExitStack() as running:
        told = {
            name: Story(
                name,
                running.enter_context(clients.start(script, server.base, errors=folder / name)),
            )
            for name, script in SCRIPTS.items()
        }

        def all_go_on(step: Callable[[Story], None]) -> int:
            for each in told.values():
                each.go_on(step)
            return sum(each.failure is None for each in told.values())

        all_go_on(Story.walk)
        left = all_go_on(Story.hear)
        shopkeeper.change(None)
        shopkeeper.change("CONFIRMED")
        left = all_go_on(Story.hear)
        shopkeeper.restart(signal.SIGTERM, meanwhile=None, followers=left)
        shopkeeper.change(None)
        shopkeeper.change("SHIPPED")
        left = all_go_on(Story.hear)
        shopkeeper.restart(signal.SIGKILL, meanwhile="DELIVERED", followers=left)
        all_go_on(Story.hear)
        all_go_on(lambda each: each.client.end())
        yield told


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_client_pages_filters_and_follows_through_restarts(
    stories: dict[str, Story], name: str
) -> None:
    story = stories[name]
    if story.failure is not None:
        raise story.failure
    wanted = sorted(row["order_id"] for row in SHOP.visible)
    assert story.pages["forward"] == wanted
    assert story.pages["back"] == wanted
    shipped = {row["order_id"] for row in SHOP.visible if row["status"] == "SHIPPED"}
    assert story.filtered == sorted(shipped - {FOLLOWED})
    assert [each["status"] for each in story.live] == STATES, "each state once, the last one too"
    positions = [parse_position(each["position"]) for each in story.live]
    assert all(b.includes(a) for a, b in pairwise(positions))
    if name in CACHING:
        assert story.cached == STATES[-len(story.cached) :]
        assert len(story.cached) >= len(STATES) - 1


def test_generated_types_compile_and_the_manifest_is_of_documents_that_are_answered(
    clients: Clients, server: ApiProcess
) -> None:
    manifest: dict[str, str] = clients.run("codegen.mjs")
    assert len(manifest) == 2
    for name, document in manifest.items():
        assert name == f"sha256:{hashlib.sha256(document.encode()).hexdigest()}"
    (query,) = (text for text in manifest.values() if "query Page" in text)
    body = server.ask(query, first=2, where={"status": {"in": ["PLACED", "SHIPPED"]}})
    assert len(body["data"]["orders"]["nodes"]) == 2
