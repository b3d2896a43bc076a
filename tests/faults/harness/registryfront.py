"""A scripted registry in front of the real one: it fails in a chosen way, then tells the truth.

Each fault is counted when an answer of its kind was sent. Stands apart because only the answers to
`GET /schemas/ids/{id}` are ever spoilt: it is all that the worker asks for.
"""

from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from dev.ports import LOOPBACK
from tests.faults.harness.bites import Bites

_ASKED: Final = "/schemas/ids/"
_UPSTREAM_TIMEOUT_S: Final = 10.0
_SLOW_S: Final = 6.0
"""Longer than the worker waits for an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back; without a status the connection is cut, `slow_s` waits first."""

    status: int | None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    slow_s: float = 0.0


def _error(status: int, code: int) -> Answer:
    return Answer(status, json.dumps({"error_code": code, "message": "scripted"}).encode())


OTHER_SCHEMA: Final = "other schema for a known id"
NOT_FOUND: Final = "not found"
FAULTS: Final[Mapping[str, Answer]] = {
    "server error": _error(500, 50001),
    "unavailable": Answer(503, b"<html>maintenance</html>"),
    "too many requests": Answer(429, b"", {"Retry-After": "1"}),
    "cut": Answer(None),
    "slow": Answer(None, slow_s=_SLOW_S),
    "wrong JSON": Answer(200, b'{"schema": '),
    "no schema in it": Answer(200, b'{"id": 7}'),
    "redirect loop": Answer(302, b"", {"Location": "?again"}),
    NOT_FOUND: _error(404, 40403),
    OTHER_SCHEMA: Answer(200, json.dumps({"schema": '"string"'}).encode()),
}


class RegistryFront:
    """Serves on a free port of loopback. `close` by leaving the context."""

    def __init__(self, upstream: str, bites: Bites) -> None:
        self._upstream = upstream.rstrip("/")
        self._bites = bites
        self._lock = threading.Lock()
        self._script: deque[tuple[str, int]] = deque()
        self.closing = threading.Event()
        self._server = _Server((LOOPBACK, 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The base address for the worker."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def spoil(self, kind: str, times: int) -> None:
        """Give this answer to so many questions for a schema."""
        self._play([(kind, times)])

    def spoil_in_turn(self, kinds: Iterable[str]) -> None:
        """Give each of these answers once, one after the other."""
        self._play([(kind, 1) for kind in kinds])

    def _play(self, script: list[tuple[str, int]]) -> None:
        assert all(kind in FAULTS for kind, _times in script), script
        with self._lock:
            self._script = deque(script)

    def heal(self) -> None:
        """Tell the truth from now on."""
        with self._lock:
            self._script.clear()

    def answer(self, path: str) -> Answer:
        """The answer to one question, spoilt where the script says so."""
        kind = self._next() if path.startswith(_ASKED) else None
        if kind is None:
            return self._truth(path)
        self._bites.bit(f"registry: {kind}")
        return FAULTS[kind]

    def _next(self) -> str | None:
        with self._lock:
            if not self._script:
                return None
            kind, left = self._script.popleft()
            if left > 1:
                self._script.appendleft((kind, left - 1))
            return kind

    def _truth(self, path: str) -> Answer:
        try:
            with urllib.request.urlopen(
                self._upstream + path, timeout=_UPSTREAM_TIMEOUT_S
            ) as found:
                return Answer(found.status, found.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read())
        except OSError:
            return Answer(None)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A worker that is killed leaves its questions: that is no error of this server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(front: RegistryFront) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = front.answer(self.path)
            if answer.slow_s:
                front.closing.wait(answer.slow_s)
            if answer.status is None:
                self.close_connection = True
                return
            self._send(answer.status, answer)

        def _send(self, status: int, answer: Answer) -> None:
            self.send_response(status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_args: object) -> None:
            """The bites are the log."""

    return Handler
