"""A PostgreSQL proxy that understands the protocol and breaks it at the place that matters: COMMIT.

    cut before    the server never sees COMMIT; the client's connection dies
    cut after     the server has committed; the client's connection dies before it is told
    late          the client's connection dies; COMMIT reaches the server some time later

Only commits of transactions that move a position are touched, so that a fault always concerns a
batch. Each is counted when its evidence is seen: the server's own answer to COMMIT where there is
one. Stands apart because it knows nothing of the product but the one statement that it looks for.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from dev.ports import LOOPBACK
from tests.faults.harness.bites import Bites
from tests.faults.harness.pgwire import (
    CANCEL_REQUEST,
    GSS_REQUEST,
    SSL_REQUEST,
    SYNC,
    ClosedError,
    Dialogue,
    Message,
    application_name,
    completed,
    read_message,
    read_startup,
)

CUT_BEFORE: Final = "commit cut before the server"
CUT_AFTER: Final = "commit cut after the server"
LATE: Final = "commit delivered late"
LATE_REFUSED: Final = "late commit refused by the server"
HELD: Final = "commit held"
CUT: Final = "database connection cut"
REFUSED: Final = "database connection refused"
STALLED: Final = "database connection stalled"

MOVES_A_POSITION: Final = ".positions SET next_offset"
_CONNECT_TIMEOUT_S: Final = 5.0


@dataclass(slots=True)
class Held:
    """A COMMIT that waits in the proxy. `caught`: it is here; `let_go`: send it on."""

    application: str = ""
    caught: threading.Event = field(default_factory=threading.Event)
    server_gone: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is done to the next COMMIT of a batch."""

    kind: str
    late_s: float = 0.0
    held: Held | None = None


class PgProxy:
    """Listens on a free port of loopback and forwards to a server. `close` ends everything."""

    def __init__(self, upstream_port: int, bites: Bites) -> None:
        self.upstream_port = upstream_port
        self.bites = bites
        self.closing = threading.Event()
        self.refusing = False
        self.delay_s = 0.0
        """How much longer each batch holds its rows before its COMMIT goes on."""
        self.flowing = threading.Event()
        self.flowing.set()
        self._plans: deque[_Plan] = deque()
        self._skip = 0
        self._every = 1
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._listener = socket.create_server((LOOPBACK, 0), backlog=64)
        self._thread = threading.Thread(target=self._listen, name="pgproxy", daemon=True)

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.closing.set()
        self.flowing.set()
        # A listener that is only closed does not wake the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._current():
            link.cut()
        self._thread.join(timeout=5)

    def through(self, dsn: str) -> str:
        """The same address, by way of this proxy."""
        return dsn.replace(f":{self.upstream_port}/", f":{self.port}/")

    # Faults.

    def spoil(self, kind: str, times: int, *, late_s: float = 0.3, every: int = 2) -> None:
        """Spoil the commits of batches to come, each `every`-th, so many times."""
        with self._lock:
            self._every = every
            self._plans.extend(_Plan(kind, late_s) for _ in range(times))

    def hold(self) -> Held:
        """Hold the next COMMIT of a batch until it is let go; both connections stay."""
        held = Held()
        with self._lock:
            self._skip = 0
            self._plans.appendleft(_Plan(HELD, held=held))
        return held

    def heal(self) -> None:
        """Spoil no commit any more."""
        with self._lock:
            self._plans.clear()

    def cut_all(self) -> int:
        """Cut every connection now; how many."""
        links = self._current()
        for link in links:
            link.cut()
        self.bites.bit(CUT, len(links))
        return len(links)

    def left(self) -> int:
        """How many spoilt commits are still to come."""
        with self._lock:
            return len(self._plans)

    # What the connections ask.

    def next_plan(self) -> _Plan | None:
        """What to do with the COMMIT that just came."""
        with self._lock:
            if not self._plans:
                return None
            if self._skip > 0:
                self._skip -= 1
                return None
            self._skip = self._every - 1
            return self._plans.popleft()

    def forget(self, link: _Link) -> None:
        """A connection is over."""
        with self._lock:
            self._links.discard(link)

    def _current(self) -> list[_Link]:
        with self._lock:
            return list(self._links)

    def _listen(self) -> None:
        while not self.closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                self.bites.bit(REFUSED)
                client.close()
                continue
            link = _Link(self, client)
            with self._lock:
                self._links.add(link)
            link.start()


class _Link:
    """One client's connection and the server's behind it, a thread for each direction."""

    def __init__(self, proxy: PgProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self._dialogue = Dialogue()
        self._expecting: _Plan | None = None
        self._held: Held | None = None
        self._application = ""

    def start(self) -> None:
        threading.Thread(target=self._run, name="pgproxy client", daemon=True).start()

    def cut(self) -> None:
        """Both ends, at once."""
        _close(self._client)
        if self._server is not None:
            _close(self._server)

    def _run(self) -> None:
        try:
            self._begin()
        except (OSError, ClosedError):
            self.cut()
            self._proxy.forget(self)

    def _begin(self) -> None:
        read = self._client.makefile("rb").read
        code, first = read_startup(read)
        while code in (SSL_REQUEST, GSS_REQUEST):
            self._client.sendall(b"N")
            code, first = read_startup(read)
        self._application = application_name(first)
        server = self._server = socket.create_connection(
            (LOOPBACK, self._proxy.upstream_port), timeout=_CONNECT_TIMEOUT_S
        )
        for end in (self._client, server):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.sendall(first.raw)
        if code == CANCEL_REQUEST:
            raise ClosedError
        pump = threading.Thread(
            target=self._from_server, args=(server,), name="pgproxy server", daemon=True
        )
        pump.start()
        self._from_client(read, server)
        if self._expecting is None or self._expecting.kind != LATE:
            self.cut()
        pump.join()
        self._proxy.forget(self)

    # Client to server.

    def _from_client(self, read: Callable[[int], bytes], server: socket.socket) -> None:
        try:
            while True:
                message = read_message(read)
                self._proxy.flowing.wait()
                if not self._forward(message, server):
                    return
        except (OSError, ClosedError):
            return

    def _forward(self, message: Message, server: socket.socket) -> bool:
        """Send a message on, unless it is a COMMIT that is to be spoilt. False: no more to read."""
        text = self._dialogue.hear(message)
        if not self._dialogue.commits(text):
            server.sendall(message.raw)
            return True
        moves = any(MOVES_A_POSITION in said for said in self._dialogue.texts)
        self._dialogue.texts.clear()
        plan = self._proxy.next_plan() if moves else None
        if plan is not None:
            return self._spoil(plan, message, server)
        if moves and self._proxy.delay_s:
            self._proxy.closing.wait(self._proxy.delay_s)
        server.sendall(message.raw)
        return True

    def _spoil(self, plan: _Plan, message: Message, server: socket.socket) -> bool:
        if plan.kind == CUT_BEFORE:
            self.cut()
            self._proxy.bites.bit(CUT_BEFORE)
            return False
        if plan.kind == HELD:
            return self._hold(plan, message, server)
        self._expecting = plan
        if plan.kind == LATE:
            _close(self._client)
            self._proxy.closing.wait(plan.late_s)
            if self._server_ended(server):
                return False
        server.sendall(message.raw + (SYNC if message.kind == b"E" else b""))
        return plan.kind != LATE

    def _server_ended(self, server: socket.socket) -> bool:
        """Whether the server had enough of this transaction before its COMMIT came."""
        return server.fileno() < 0

    def _hold(self, plan: _Plan, message: Message, server: socket.socket) -> bool:
        held = self._held = plan.held
        assert held is not None
        held.application = self._application
        held.caught.set()
        held.let_go.wait()
        if held.server_gone.is_set():
            return False
        server.sendall(message.raw)
        return True

    # Server to client.

    def _from_server(self, server: socket.socket) -> None:
        read = server.makefile("rb").read
        try:
            while True:
                message = read_message(read)
                self._proxy.flowing.wait()
                if self._expecting is None:
                    self._client.sendall(message.raw)
                elif self._answered(message):
                    break
        except (OSError, ClosedError):
            if self._expecting is not None and self._expecting.kind == LATE:
                self._proxy.bites.bit(LATE_REFUSED)
        if self._held is not None:
            self._held.server_gone.set()
        self.cut()

    def _answered(self, message: Message) -> bool:
        """Whether the server has answered a spoilt COMMIT; counts what it answered."""
        plan = self._expecting
        assert plan is not None
        if completed(message) == "COMMIT":
            self._proxy.bites.bit(plan.kind)
            return True
        if completed(message) == "ROLLBACK" or message.kind == b"E":
            if plan.kind == LATE:
                self._proxy.bites.bit(LATE_REFUSED)
            return True
        return False


def _close(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was closed by the other side, or before
    finally:
        end.close()
