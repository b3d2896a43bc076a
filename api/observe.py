"""What every request leaves behind: an id on its response, a line in the log, figures, a span.

Plain ASGI, because middleware that reads bodies would buffer them. A WebSocket is one request here:
its line comes at its end.
"""

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from random import getrandbits
from typing import Any, Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.execute import Answer
from api.metrics import Metrics
from api.proxies import address_of
from api.spans import serving

REQUEST_ID_HEADER: Final = "x-request-id"
ROUTES: Final = ("/graphql", "/healthz", "/readyz", "/metrics", "/schema.graphql")

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
"""W3C Trace Context, section 3.2.2."""
_METHODS: Final = ("GET", "POST", "HEAD", "OPTIONS")
_REFUSED: Final = 400
_ABNORMAL: Final = 1006
_LONGEST_NAME: Final = 80

_log = structlog.get_logger(__name__)


class Observed:
    """Gives each request its id, echoes it, and counts and logs what became of the request.

    Without `log_all` only those are logged that were not answered as they wanted to be.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, log_all: bool) -> None:
        self._app = app
        self._log_all = log_all
        # To find a label's place takes longer than to count there.
        self._requests = lru_cache(None)(metrics.requests.labels)
        self._seconds = lru_cache(None)(metrics.request_seconds.labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        seen = _Seen(scope)
        # Labels and names are bounded: whatever a client makes up counts as "other".
        route = scope["path"] if scope["path"] in ROUTES else "other"
        with serving(route, scope) as span:
            named = {"request_id": seen.request_id}
            if trace_id := span.trace_id or seen.callers_trace_id:
                named["trace_id"] = trace_id
            with structlog.contextvars.bound_contextvars(**named):
                try:
                    await self._app(scope, seen.received(receive), seen.sent(send))
                finally:
                    if scope["type"] == "http":
                        span.tell(http__response__status_code=seen.status)
                        self._note_request(seen, route)
                    else:
                        _note_socket(seen, route)

    def _note_request(self, seen: "_Seen", route: str) -> None:
        method = seen.scope["method"] if seen.scope["method"] in _METHODS else "other"
        self._requests(route, method, str(seen.status)).inc()
        if not seen.streams:
            self._seconds(route).observe(seen.seconds)
        if route not in ("/graphql", "other"):
            return
        answer = seen.scope["state"].get("answer")
        if self._log_all or seen.status >= _REFUSED or (answer and answer.outcome != "ok"):
            _log.info(
                "request",
                route=route,
                status=seen.status,
                ms=round(seen.seconds * 1000, 1),
                client=seen.client,
                **_told(answer),
            )


def _note_socket(seen: "_Seen", route: str) -> None:
    _log.info(
        "socket",
        route=route,
        code=seen.code,
        seconds=round(seen.seconds, 1),
        client=seen.client,
        **seen.scope["state"].get("told", {}),
    )


def _told(answer: Answer | None) -> Mapping[str, Any]:
    """What the line says of a GraphQL operation."""
    if answer is None:
        return {}
    ran = answer.ran
    if ran is None:
        return {"outcome": answer.outcome}
    name = ran.name[:_LONGEST_NAME]
    return {"operation": name, "outcome": answer.outcome, "cost": ran.cost, "role": ran.role}


class _Seen:
    """One request, as its messages pass by."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.request_id = _request_id(scope)
        self.status = 500
        self.code = _ABNORMAL
        self.streams = False
        self._began = time.perf_counter()
        scope.setdefault("state", {})["request_id"] = self.request_id

    @property
    def seconds(self) -> float:
        """Since it came."""
        return time.perf_counter() - self._began

    @property
    def client(self) -> str:
        """The address that it came from."""
        return address_of(self.scope)

    @property
    def callers_trace_id(self) -> str | None:
        """The trace that the caller says it belongs to."""
        found = _TRACE.fullmatch(_header(self.scope, b"traceparent") or "")
        return found[1] if found else None

    def received(self, receive: Receive) -> Receive:
        """The same messages; the code of a connection's end is noted."""

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.code = message.get("code", self.code)
            return message

        return receiving

    def sent(self, send: Send) -> Send:
        """The same messages; a response carries the id, its status is noted, and a socket's end."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                header = (REQUEST_ID_HEADER.encode(), self.request_id.encode())
                headers = [*message.get("headers", ()), header]
                self.streams = any(
                    name == b"content-type" and value.startswith(b"text/event-stream")
                    for name, value in headers
                )
                message = {**message, "headers": headers}
            elif message["type"] == "websocket.close":
                self.code = message.get("code", 1000)
            elif message["type"] == "websocket.http.response.start":
                self.code = message["status"]
            await send(message)

        return sending


def _request_id(scope: Scope) -> str:
    given = _header(scope, REQUEST_ID_HEADER.encode()) or ""
    return given if _ID.fullmatch(given) else f"{getrandbits(128):032x}"  # no secret


def _header(scope: Scope, wanted: bytes) -> str | None:
    for name, value in scope["headers"]:
        if name == wanted:
            text: str = value.decode("latin-1")
            return text
    return None
