"""Many clients of live queries at once, each on a socket of its own, in one event loop.

Stands apart because a test that follows with a thousand sockets can afford no thread for each.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

PROTOCOL: Final = Subprotocol("graphql-transport-ws")
_AT_ONCE: Final = 50
_HEAR_S: Final = 60.0


@dataclass(slots=True)
class Follower:
    """One client; `heard` are the payloads of its results."""

    socket: ClientConnection
    heard: list[dict[str, Any]] = field(default_factory=list)

    async def hear(self) -> dict[str, Any]:
        """The next result."""
        async with asyncio.timeout(_HEAR_S):
            message = json.loads(await self.socket.recv())
        assert message["type"] == "next", message
        self.heard.append(message["payload"])
        return self.heard[-1]

    async def hear_the_end(self) -> int:
        """The code that the server closes with."""
        try:
            async with asyncio.timeout(_HEAR_S):
                while True:
                    await self.socket.recv()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006


class Crowd:
    """Followers of one server, all let in, each with the first result of its query."""

    def __init__(self, address: str, *, compressed: bool = True) -> None:
        self._address = address.replace("http", "ws", 1)
        self._compression = "deflate" if compressed else None
        self._open = AsyncExitStack()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self.followers: list[Follower] = []

    async def __aenter__(self) -> "Crowd":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def come(self, queries: Sequence[str]) -> None:
        """One more follower for each query; return when all have their first result."""
        self.followers += await asyncio.gather(*map(self._one, queries))

    async def all_hear(self) -> list[dict[str, Any]]:
        """The next result of each."""
        return await asyncio.gather(*(each.hear() for each in self.followers))

    async def all_end(self) -> set[int]:
        """The codes that they are closed with."""
        return {*await asyncio.gather(*(each.hear_the_end() for each in self.followers))}

    async def _one(self, query: str) -> Follower:
        async with self._places:
            socket = await self._open.enter_async_context(
                connect(
                    self._address,
                    subprotocols=[PROTOCOL],
                    compression=self._compression,
                    # A server says good-bye to all at once: nobody shall wait for our own.
                    close_timeout=0.5,
                    ping_interval=None,
                )
            )
            follower = Follower(socket)
            await socket.send(json.dumps({"type": "connection_init"}))
            assert json.loads(await socket.recv())["type"] == "connection_ack"
            payload = {"query": query}
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
            await follower.hear()
            return follower
