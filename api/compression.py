"""Answers made smaller for those who ask for it: gzip, for what is large and has an end.

Starlette does the work: streams of events pass as they are, a large body is compressed in a thread.
Here stand the level, and what Starlette leaves out: `gzip;q=0` says no, and every answer varies.
"""

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_VARIES: Final = b"Accept-Encoding"
_LEVEL: Final = 1
"""The quickest. What more would save is less than what it costs a service that others wait for."""


class Compression(GZipMiddleware):
    """Compresses answers of `least_bytes` and more."""

    def __init__(self, app: ASGIApp, *, least_bytes: int) -> None:
        super().__init__(app, minimum_size=least_bytes, compresslevel=_LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_varied(message: Message) -> None:
            if message["type"] == "http.response.start":
                _vary(message)
            await send(message)

        accepted = Headers(scope=scope).get("accept-encoding", "")
        if "gzip" in accepted and not refuses_gzip(accepted):
            await super().__call__(scope, receive, send_varied)
        else:
            await self.app(scope, receive, send_varied)


def _vary(message: Message) -> None:
    """Small answers and 304s say it too: what a 304 says must be what the answer said."""
    if not any(name == b"vary" and _VARIES in value for name, value in message["headers"]):
        MutableHeaders(raw=message["headers"]).add_vary_header(_VARIES.decode())


def refuses_gzip(accepted: str) -> bool:
    """Whether an `Accept-Encoding` names gzip to say that it is not wanted."""
    for each in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        if name == "gzip" and any(_is_zero(part) for part in parameters):
            return True
    return False


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().rstrip("0") in ("", "0.", ".")
