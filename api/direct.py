"""Statements straight on libpq: what a cursor does around a small one costs more than itself.

psycopg connects, adapts values and names errors; between sending a statement and having its result
there is nothing here but one wait for the socket. Everything that is asked often goes this way; for
the rest a connection is what it always was.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

_MOST: Final = 100
"""How many statements the server keeps for a connection, and how many we remember as met once."""
_GIVE_UP_S: Final = 5.0

_Key = tuple[str, tuple[int, ...]]
"""A statement's text, and the types of its values."""


class DirectConnection(psycopg.AsyncConnection[dict[str, Any]]):
    """A connection that also runs statements directly; one at a time, and no transaction around."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._names: OrderedDict[_Key, bytes] = OrderedDict()
        self._met: OrderedDict[_Key, None] = OrderedDict()
        self._numbered = 0

    async def run(self, text: str, values: Sequence[Any] = ()) -> PGresult:
        """The result of one statement with `$1`, as text. psycopg.Error: as a cursor raises it.

        What comes a second time is prepared, unless `prepare_threshold` forbids it.
        """
        adapted = Transformer(self)
        dumped = adapted.dump_sequence(values, [PyFormat.AUTO] * len(values))
        key = text, tuple(adapted.types or ())
        name = await self._name_of(key)
        if name is None:
            self.pgconn.send_query_params(text.encode(), dumped, key[1], adapted.formats)
        else:
            self.pgconn.send_query_prepared(name, dumped, adapted.formats)
        return await self._outcome()

    async def _name_of(self, key: _Key) -> bytes | None:
        """The name by which the server knows a statement; None: it is not to have one."""
        if self.prepare_threshold is None:
            return None
        name = self._names.get(key)
        if name is not None:
            self._names.move_to_end(key)
            return name
        if key not in self._met:
            self._met[key] = None
            if len(self._met) > _MOST:
                self._met.popitem(last=False)
            return None
        return await self._prepare(key)

    async def _prepare(self, key: _Key) -> bytes:
        if len(self._names) >= _MOST:
            _, forgotten = self._names.popitem(last=False)
            self.pgconn.send_query(b"DEALLOCATE %b" % forgotten)
            await self._outcome()
        self._numbered += 1
        name = b"viewkeeper_%d" % self._numbered
        self.pgconn.send_prepare(name, key[0].encode(), key[1])
        await self._outcome()
        del self._met[key]
        self._names[key] = name
        return name

    async def _outcome(self) -> PGresult:
        result = await self._received()
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise psycopg.errors.error_from_result(result)
        return result

    async def _received(self) -> PGresult:
        try:
            return await self._last_result()
        except asyncio.CancelledError:
            await self._give_up()
            raise

    async def _last_result(self) -> PGresult:
        while self.pgconn.flush():
            await self._until(asyncio.get_running_loop(), writable=True)
        last: PGresult | None = None
        while True:
            while self.pgconn.is_busy():
                await self._until(asyncio.get_running_loop())
                self.pgconn.consume_input()
            result = self.pgconn.get_result()
            if result is None:
                assert last is not None
                return last
            last = result

    async def _until(self, loop: asyncio.AbstractEventLoop, *, writable: bool = False) -> None:
        """Until the socket can be read, or written to."""
        moved = loop.create_future()
        socket = self.pgconn.socket
        watch = loop.add_writer if writable else loop.add_reader
        watch(socket, _moved, moved)
        try:
            await moved
        finally:
            (loop.remove_writer if writable else loop.remove_reader)(socket)

    async def _give_up(self) -> None:
        """Nobody waits for the result any more: the server is told, or the connection ends."""
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self.cancel_safe(timeout=_GIVE_UP_S)
                await self._last_result()
        except (psycopg.Error, TimeoutError):
            await self.close()


def _moved(moved: asyncio.Future[None]) -> None:
    if not moved.done():
        moved.set_result(None)
