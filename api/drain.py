"""The way out of a process: not ready, a moment for whoever balances load, good-bye, then the end.

Stands apart because it goes around the server that runs the application: that one would close
sockets with a code that means something else, would wait for streams that never end, and would
close kept connections under clients that were not told.
"""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = structlog.get_logger(__name__)


class Drain:
    """Hears SIGTERM and SIGINT before the server; `goodbye` ends what has no end of its own."""

    def __init__(self, goodbye: Callable[[], Awaitable[None]], *, pause_s: float) -> None:
        self._goodbye = goodbye
        self._pause_s = pause_s
        self._began = False
        self._task: asyncio.Task[None] | None = None

    @property
    def began(self) -> bool:
        """Whether the process is on its way out."""
        return self._began

    def listen(self) -> None:
        """Put ourselves before the handlers that are there; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            after = signal.getsignal(number)
            if callable(after):
                signal.signal(number, self._handler(loop, after))

    def _handler(
        self,
        loop: asyncio.AbstractEventLoop,
        after: Callable[[int, FrameType | None], object],
    ) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            if self._began:
                # Whoever asks twice does not want to wait.
                after(number, frame)
                return
            self._began = True
            loop.call_soon_threadsafe(self._begin, lambda: after(number, None))

        return handle

    def _begin(self, after: Callable[[], object]) -> None:
        self._task = asyncio.create_task(self._run(after))

    async def _run(self, after: Callable[[], object]) -> None:
        _log.info("draining", pause_s=self._pause_s)
        try:
            await asyncio.sleep(self._pause_s)
            await self._goodbye()
        finally:
            after()


class Last:
    """Says of each answer on the way out that it is the last on its connection."""

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def send_last(message: Message) -> None:
            if self._drain.began and message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_last)
