"""Cutting off connections on which nothing moves, so that nobody waits for a server that is frozen.

Stands apart from `read.py`, which says what is waited for. A slow statement and a frozen server
look the same from one connection; a second one tells them apart.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import structlog

Connection = psycopg.AsyncConnection[dict[str, Any]]

_log = structlog.get_logger(__name__)


class Cut:
    """Cuts a connection off: a frozen server would let even a cancellation wait.

    What waits on it then fails as on any lost connection; `made` says that it was us.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.made = False

    def make(self) -> None:
        """Shut the socket, under whatever waits on it."""
        self.made = True
        socket_number = os.dup(self._connection.pgconn.socket)
        with socket.socket(fileno=socket_number) as copy, suppress(OSError):
            copy.shutdown(socket.SHUT_RDWR)


@contextmanager
def bounded(connection: Connection, timeout_s: float) -> Iterator[Cut]:
    """Cut the connection after a time."""
    cut = Cut(connection)
    handle = asyncio.get_running_loop().call_later(timeout_s, cut.make)
    try:
        yield cut
    finally:
        handle.cancel()


class Pulse:
    """Asks whether the server lives at all, for all who wait longer than usual at once."""

    def __init__(self, dsn: str, *, timeout_s: float) -> None:
        self._dsn = dsn
        self._timeout_s = timeout_s
        self._waiting: set[Cut] = set()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self, cut: Cut) -> Iterator[None]:
        """Cut a connection that has been silent for a while, if the server is silent too."""
        handle = asyncio.get_running_loop().call_later(self._timeout_s, self._ask, cut)
        try:
            yield
        finally:
            handle.cancel()
            self._waiting.discard(cut)

    def _ask(self, cut: Cut) -> None:
        self._waiting.add(cut)
        if self._task is None:
            self._task = asyncio.create_task(self._feel())

    async def _feel(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                probe = await psycopg.AsyncConnection.connect(self._dsn, connect_timeout=3)
            await probe.close()
        except TimeoutError:
            for cut in self._waiting:
                cut.make()
        except psycopg.Error as error:
            # It was refused, so something answers: what waits will hear the same.
            _log.info("a new connection was refused", error=str(error))
        finally:
            self._waiting.clear()
            self._task = None
