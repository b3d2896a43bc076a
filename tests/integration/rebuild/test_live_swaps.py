"""Live queries across a swap and its way back: they go on, never back, and end rightly."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from rebuild import run
from rebuild.report import Options, Report
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.api.test_events import STREAM, events, serving_at
from tests.integration.api.test_live import PROTOCOL, label
from tests.integration.rebuild.parts import Log, Watcher, live, wait_until_live_includes, worker
from tests.integration.rebuild.telling import Teller
from views.positions import parse_position

WAIT_S = 60.0
FOLLOW = 'subscription { order(orderId: "followed") { version customerId } }'


def over_socket(address: str) -> Iterator[dict[str, Any]]:
    """Results over graphql-transport-ws, until the server ends."""
    protocols = [Subprotocol(name) for name in PROTOCOL]
    with connect(address.replace("http", "ws", 1), subprotocols=protocols) as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(socket.recv())["type"] == "connection_ack"
        asked = {"type": "subscribe", "id": "1", "payload": {"query": FOLLOW}}
        socket.send(json.dumps(asked))
        for message in socket:
            said = json.loads(message)
            if said["type"] == "ping":
                socket.send(json.dumps({"type": "pong"}))
            elif said["type"] != "complete":
                yield said["payload"]


def over_events(address: str) -> Iterator[dict[str, Any]]:
    """Results as server-sent events, until the server ends."""
    with (
        httpx.Client(timeout=WAIT_S) as client,
        client.stream("POST", address, json={"query": FOLLOW}, headers=STREAM) as response,
    ):
        for name, said in events(response):
            if name == "next":
                yield said


@dataclass(slots=True)
class Follower:
    """Somebody who follows an order, and keeps each result."""

    way: Callable[[str], Iterator[dict[str, Any]]]
    heard: list[dict[str, Any]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def follow(self, address: str) -> None:
        """Until the server ends."""
        try:
            for said in self.way(address):
                self.heard.append(said)
        except (ConnectionClosed, httpx.TransportError, AssertionError) as error:
            self.ended.append(repr(error))
        else:
            self.ended.append("by the server")

    def hears(self, version: int, build: str) -> None:
        """Return when a version was heard, from a build."""
        wanted = (str(version), build)
        eventually(
            lambda: self.ended or (bool(self.heard) and self.last() == wanted),
            WAIT_S,
            f"version {version} of {build} is heard",
        )
        assert self.ended == []

    def last(self) -> tuple[str, str]:
        """Version and build of the last result."""
        order = self.heard[-1]["data"]["order"]
        return ("" if order is None else order["version"]), label(self.heard[-1])["build"]

    def builds(self) -> list[str]:
        """The builds that answered, one after the other."""
        names = [label(said)["build"] for said in self.heard]
        return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


@contextmanager
def following(shop: Database) -> Iterator[tuple[Follower, ...]]:
    """One follower each way, with an API of their own; they end with it."""
    followers = (Follower(over_socket), Follower(over_events))
    with serving_at(shop.api_dsn) as address:
        threads = [threading.Thread(target=each.follow, args=(address,)) for each in followers]
        for thread in threads:
            thread.start()
        yield followers
    for thread in threads:
        thread.join()


def test_live_queries_go_on_across_swaps_and_never_back(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    settings, stop = log.settings(shop), threading.Event()
    teller = Teller(log, shop, "followed")
    moves: list[Callable[[], Report]] = [
        lambda: run.rebuild(settings, Options(), watcher, stop),
        lambda: run.roll_back(settings, watcher, stop, now=False),
        lambda: run.roll_back(settings, watcher, stop, now=True),
    ]
    teller.tell()
    with worker(settings):
        wait_until_live_includes(shop, log.end())
        with following(shop) as followers:
            for follower in followers:
                follower.hears(1, "build_1")
            for move in moves:
                teller.tell()
                move()
                teller.tell()
                for follower in followers:
                    follower.hears(teller.version, live(shop))
    for follower in followers:
        assert all("errors" not in said for said in follower.heard)
        positions = [parse_position(label(said)["position"]) for said in follower.heard]
        for before, after in pairwise(positions):
            assert after.includes(before)
        versions = [int(said["data"]["order"]["version"]) for said in follower.heard]
        assert versions == sorted(set(versions))
        assert follower.builds() == ["build_1", "build_2", "build_1", "build_2"]
