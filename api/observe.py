"""What every request leaves behind: an id on its response, a line in the log, figures.

Plain ASGI, because middleware that reads bodies would buffer them.
"""

import re
import time
import uuid
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import Metrics

REQUEST_ID_HEADER: Final = "x-request-id"
ROUTES: Final = ("/graphql", "/healthz", "/readyz", "/metrics", "/schema.graphql")

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS: Final = ("GET", "POST", "HEAD", "OPTIONS")

_log = structlog.get_logger(__name__)


class Observed:
    """Gives each request its id, echoes it, and counts and logs what became of the request."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = time.perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                header = (REQUEST_ID_HEADER.encode(), request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                self._note(scope, status=status, seconds=time.perf_counter() - began_at)

    def _note(self, scope: Scope, *, status: int, seconds: float) -> None:
        # Labels are bounded: whatever a client makes up counts as "other".
        route = scope["path"] if scope["path"] in ROUTES else "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if route in ("/graphql", "other"):
            _log.info("request", route=route, status=status, ms=round(seconds * 1000, 1))


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER.encode() and _ID.fullmatch(text := value.decode("latin-1")):
            return str(text)
    return uuid.uuid4().hex
