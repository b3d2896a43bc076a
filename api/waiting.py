"""Waiting for the views to move: one listening connection a process, and whoever waits on it.

Stands apart from `read.py` because it outlives every snapshot. What is heard is only ever a hint:
whoever is woken reads again, and its own snapshot decides. So a lost notification costs one slow
beat, and a standby, which hears of commits before it has them, costs a few looks.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

import psycopg
import structlog

from api.errors import ApiError
from api.position import AheadError, Consistency, Requirement, require
from api.spans import span
from views.positions import BadPositionError, Partition, PositionVector, parse_position

T = TypeVar("T")
Look = Callable[[], Awaitable[Consistency]]
"""Reads what the database contains now; raises ApiError while that cannot be told."""

CHANNEL: Final = "viewkeeper"
BEAT_S: Final = 1.0
FAST_S: Final = 0.005
FOLLOW_S: Final = 0.05
AWAY_S: Final = 0.25
RECONNECT_S: Final = 1.0
PROBE_S: Final = 5.0

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _Waiter:
    """What one operation still misses. `urgent`: no notification will tell in time; look often."""

    missing: dict[Partition, int]
    urgent: bool
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, offsets: dict[Partition, int]) -> None:
        for partition, next_offset in offsets.items():
            if next_offset >= self.missing.get(partition, next_offset + 1):
                del self.missing[partition]
        if not self.missing:
            self.woken.set()


class Movements:
    """Tells who waits that the views have moved. `start` before use, `stop` at the end.

    `dsn` is where to LISTEN: past a transaction pooler, and on the primary of a standby.
    """

    def __init__(self, dsn: str, look: Look) -> None:
        self._dsn = dsn
        self._look = look
        self._waiters: set[_Waiter] = set()
        self._followers: set[asyncio.Event] = set()
        self._soon = asyncio.Event()
        self._needed = asyncio.Event()
        self._listening = False
        self._seen: tuple[str, str, int] | None = None
        self._reached = PositionVector({})
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def listening(self) -> bool:
        """Whether notifications arrive now."""
        return self._listening

    @property
    def waiting(self) -> int:
        """How many operations wait for events."""
        return len(self._waiters)

    async def start(self) -> None:
        """Begin to listen, without waiting for the database."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._watch())]

    async def stop(self) -> None:
        """End; whoever still waits runs into its own time-out."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A cancelled task holds the frames that it was in: a connection half made would stay open.
        self._tasks.clear()

    async def until_there(
        self, work: Callable[[], Awaitable[T]], *, at_least: PositionVector | None, timeout_s: float
    ) -> T:
        """Do the work once `at_least` is reached; again where its own snapshot lacked it still.

        AheadError: `timeout_s` has passed; the error is the last attempt's, with what it saw.
        """
        deadline = time.monotonic() + timeout_s
        told = False
        while True:
            try:
                await self._look_first(at_least)
                return await work()
            except AheadError as error:
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not await self._moved(error, left_s=left_s, urgent=told):
                    raise
                told = True

    def saw(self, consistency: Consistency) -> None:
        """An answer contained this: who asks for no more needs no look before the work."""
        self._reached = consistency.vector

    async def _look_first(self, at_least: PositionVector | None) -> None:
        """Spare the work where it would be thrown away: a look costs one row."""
        if at_least is None or self._reached.includes(at_least):
            return
        consistency = await self._look()
        self.saw(consistency)
        require(Requirement(at_least=at_least), consistency)

    def follow(self) -> asyncio.Event:
        """An event that is set whenever the views may have changed. Give it back to `leave`."""
        moved = asyncio.Event()
        self._followers.add(moved)
        self._needed.set()
        return moved

    def leave(self, moved: asyncio.Event) -> None:
        """Stop following."""
        self._followers.discard(moved)

    async def _moved(self, error: AheadError, *, left_s: float, urgent: bool) -> bool:
        waiter = _Waiter(error.missing(), urgent=urgent)
        self._waiters.add(waiter)
        # What was committed between the snapshot and here was told to nobody: look once.
        self._needed.set()
        self._soon.set()
        try:
            with span("wait for events"):
                async with asyncio.timeout(left_s):
                    await waiter.woken.wait()
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        if urgent:
            # It was told so before, and its own snapshot disagreed: a standby, a few moments late.
            await asyncio.sleep(FAST_S)
        return True

    async def _listen(self) -> None:
        said = ""
        while True:
            try:
                await self._hear()
            except (psycopg.Error, OSError, TimeoutError) as error:
                # A standby refuses to LISTEN until it is promoted: say it once, not every second.
                if str(error) != said:
                    _log.warning("not listening: positions are looked at instead", error=str(error))
                    said = str(error)
            finally:
                self._listening = False
            self._soon.set()
            await asyncio.sleep(RECONNECT_S)

    async def _hear(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, connect_timeout=3, application_name="viewkeeper-api-listen"
        )
        async with connection:
            await connection.execute(f"LISTEN {CHANNEL}".encode())
            self._listening = True
            _log.info("listening")
            self._tell_all()
            while True:
                async for notification in connection.notifies(timeout=PROBE_S):
                    self._tell(notification.payload)
                async with asyncio.timeout(PROBE_S):
                    await connection.execute("SELECT 1")

    def _tell(self, payload: str) -> None:
        _, _, text = payload.partition(" ")
        try:
            vector = parse_position(text)
        except BadPositionError:
            _log.warning("a notification is not understood", payload=payload[:200])
            self._tell_all()
            return
        if not vector.next_offsets:
            self._tell_all()
            return
        for waiter in [*self._waiters]:
            if not waiter.urgent:
                waiter.hear(dict(vector.next_offsets))
        for moved in self._followers:
            moved.set()

    def _tell_all(self) -> None:
        """Something moved, or may have while nobody listened."""
        self._soon.set()
        for moved in self._followers:
            moved.set()

    async def _watch(self) -> None:
        """Look at the positions: at once for a new waiter, then as often as is needed."""
        while True:
            await self._needed.wait()
            self._soon.clear()
            pause_s = await self._looked()
            if not self._waiters and not self._followers:
                self._needed.clear()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._soon.wait()

    async def _looked(self) -> float:
        try:
            consistency = await self._look()
        except ApiError:
            return AWAY_S
        except Exception as error:  # noqa: BLE001 - this task must outlive whatever happens
            _log.error("positions could not be looked at", exc_info=error)
            return AWAY_S
        state = consistency.build, consistency.token, consistency.change_counter
        if state != self._seen:
            self._seen = state
            for moved in self._followers:
                moved.set()
        for waiter in [*self._waiters]:
            waiter.hear(dict(consistency.vector.next_offsets))
        return self._pause_s()

    def _pause_s(self) -> float:
        if any(waiter.urgent for waiter in self._waiters):
            return FAST_S
        if self._listening:
            return BEAT_S
        return FAST_S if self._waiters else FOLLOW_S
