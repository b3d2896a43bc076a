"""Cutting off connections on which nothing moves, so that nobody waits for a server that is frozen.

Stands apart from `read.py`, which says what is waited for. A slow statement and a frozen server
look the same from one connection; a second one tells them apart.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import structlog

Connection = psycopg.AsyncConnection[dict[str, Any]]

_log = structlog.get_logger(__name__)


class Cut:
    """Cuts a connection off after a time: a frozen server would let even a cancellation wait.

    Used around what waits on the connection, which then fails as on any lost one; `made` says that
    it was us. With a pulse it is cut sooner where the server does not live.
    """

    __slots__ = ("_connection", "_pulse", "_timeout_s", "_timer", "made")

    def __init__(
        self, connection: Connection, timeout_s: float, pulse: "Pulse | None" = None
    ) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._pulse = pulse
        self._timer: asyncio.TimerHandle | None = None
        self.made = False

    def __enter__(self) -> "Cut":
        if self._pulse is None or self._pulse.timeout_s >= self._timeout_s:
            self._later(self._timeout_s, self.make)
        else:
            self._later(self._pulse.timeout_s, self._long)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._pulse is not None:
            self._pulse.forget(self)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, call)

    def _long(self) -> None:
        """It takes longer than usual. One timer until then: most never come here."""
        assert self._pulse is not None
        self._later(self._timeout_s - self._pulse.timeout_s, self.make)
        self._pulse.ask(self)

    @property
    def closed(self) -> bool:
        """Whether the connection is lost, by whomever."""
        return self._connection.closed

    def make(self) -> None:
        """Shut the socket, under whatever waits on it."""
        self.made = True
        socket_number = os.dup(self._connection.pgconn.socket)
        with socket.socket(fileno=socket_number) as copy, suppress(OSError):
            copy.shutdown(socket.SHUT_RDWR)


class Pulse:
    """Asks whether the server lives at all, for all who wait longer than usual at once.

    `timeout_s`: how long one waits until that is asked, and how long an answer may take.
    """

    def __init__(self, dsn: str, *, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._dsn = dsn
        self._waiting: set[Cut] = set()
        self._task: asyncio.Task[None] | None = None

    def ask(self, cut: Cut) -> None:
        """Ask, and make the cut if there is no answer."""
        self._waiting.add(cut)
        if self._task is None:
            self._task = asyncio.create_task(self._feel())

    def forget(self, cut: Cut) -> None:
        """Nothing waits there any more."""
        self._waiting.discard(cut)

    async def _feel(self) -> None:
        try:
            async with asyncio.timeout(self.timeout_s):
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
