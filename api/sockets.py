"""`graphql-transport-ws`: operations and live queries over one WebSocket.

Follows the protocol of the `graphql-ws` project, close codes included. Stands apart from `live.py`,
which knows no transport, and from `http.py`, which has no connection that lasts.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from api.auth import Known
from api.callers import OPERATOR
from api.errors import ApiError, BadRequestError, UnavailableError, refusal_of
from api.execute import Answer, GraphQLRequest, refused
from api.http import Endpoint, asked_by, from_parts, refusing, seen_of
from api.live import GoingAwayError, LiveQueries
from api.proxies import address_of

PROTOCOL: Final = "graphql-transport-ws"
INIT_TIMEOUT_S: Final = 5.0
MOST_SUBSCRIPTIONS: Final = 20
MOST_FRAME_BYTES: Final = 65_536
GOODBYE_S: Final = 2.0
_GOING: Final = (1001, "Going away")

_log = structlog.get_logger(__name__)


class _CloseError(Exception):
    """The connection must end, with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(eq=False, slots=True)
class Sockets:
    """All open sockets of a process, so that a shutdown can say good-bye."""

    endpoint: Endpoint
    live: LiveQueries
    origins: tuple[str, ...] = ()
    init_timeout_s: float = INIT_TIMEOUT_S
    open: "set[_Socket]" = field(default_factory=set)
    going: bool = False

    async def serve(self, socket: WebSocket, *, request_id: str) -> None:
        """One connection, from its request to its end."""
        if not self._is_welcome(socket):
            await socket.close(1008)
            return
        address = address_of(socket.scope)
        try:
            self.endpoint.places.require(address)
        except ApiError as error:
            denial = refusing(socket, error)
            self.endpoint.figures.answered(socket.state.answer, over="websocket")
            await socket.send_denial_response(denial)
            return
        if PROTOCOL not in socket.scope.get("subprotocols", ()):
            await socket.accept()
            await socket.close(4406, "Subprotocol not acceptable")
            return
        with self.endpoint.places.held_by(address):
            await socket.accept(PROTOCOL)
            if self.going:
                await socket.close(*_GOING)
                return
            one = _Socket(socket, self, request_id)
            self.open.add(one)
            try:
                await one.run()
            finally:
                self.open.discard(one)
                socket.state.told = {"operations": one.operations, "role": one.role}

    async def goodbye(self) -> None:
        """Close every socket, and those that still come: the process goes away."""
        self.going = True
        # A client that reads nothing holds up its own good-bye, and nobody else's.
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await asyncio.gather(*(each.end(*_GOING) for each in [*self.open]))

    def _is_welcome(self, socket: WebSocket) -> bool:
        """A browser names the page's origin: our own host, or one of the settings."""
        origin = socket.headers.get("origin")
        if origin is None or origin in self.origins:
            return True
        return urlsplit(origin).netloc == socket.headers.get("host")


class _Socket:
    def __init__(self, socket: WebSocket, sockets: Sockets, request_id: str) -> None:
        self._socket = socket
        self._sockets = sockets
        self._request_id = request_id
        self._known: Known | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self._acknowledged = asyncio.Event()
        self._asked_in = False
        self.operations = 0
        self._sending = asyncio.Lock()

    @property
    def role(self) -> str:
        """As what it reads; empty before it has said who it is."""
        if not self._acknowledged.is_set():
            return ""
        return self._known.caller.role if self._known else OPERATOR.role

    async def run(self) -> None:
        clock = asyncio.create_task(self._watch_clock())
        try:
            while True:
                await self._message(await self._socket.receive())
        except _CloseError as error:
            await self.end(error.code, error.reason)
        except WebSocketDisconnect:
            pass
        except Exception as error:  # noqa: BLE001 - the last line: nothing unexpected gets out
            _log.error("a socket failed", request_id=self._request_id, exc_info=error)
            await self.end(4500, "Internal server error")
        finally:
            tasks = [clock, *self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def end(self, code: int, reason: str) -> None:
        """Close, unless it is closed."""
        with suppress(RuntimeError, WebSocketDisconnect):
            if self._socket.application_state is not WebSocketState.DISCONNECTED:
                await self._socket.close(code, reason)

    async def _watch_clock(self) -> None:
        try:
            async with asyncio.timeout(self._sockets.init_timeout_s):
                await self._acknowledged.wait()
        except TimeoutError:
            await self.end(4408, "Connection initialisation timeout")
            return
        if self._known is not None:
            await asyncio.sleep(max(self._known.expires_at_s - time.time(), 0))
            await self.end(4403, "Forbidden")

    async def _message(self, event: Mapping[str, Any]) -> None:
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1005))
        text = event.get("text")
        if text is None:
            raise _CloseError(4400, "Send text")
        if len(text) > MOST_FRAME_BYTES:
            raise _CloseError(1009, "Message too big")
        message = _object(text)
        match message.get("type"):
            case "connection_init":
                await self._init(message)
            case "ping":
                await self._send({"type": "pong"})
            case "pong":
                pass
            case "subscribe":
                self._subscribe(message)
            case "complete":
                if task := self._running.pop(_id(message), None):
                    task.cancel()
            case _:
                raise _CloseError(4400, "Unknown message type")

    async def _init(self, message: Mapping[str, Any]) -> None:
        if self._asked_in:
            raise _CloseError(4429, "Too many initialisation requests")
        self._asked_in = True
        payload = message.get("payload") or {}
        if not isinstance(payload, dict):
            raise _CloseError(4400, "payload must be an object")
        if (gate := self._sockets.endpoint.gate) is not None:
            named = {str(name).lower(): value for name, value in payload.items()}
            header = named.get("authorization", self._socket.headers.get("authorization"))
            try:
                self._known = await gate.known(header if isinstance(header, str) else None)
            except UnavailableError as error:
                # Clients take 4500 for final, and come again after this one.
                raise _CloseError(1013, error.message) from error
            except ApiError as error:
                raise _CloseError(4403, "Forbidden") from error
        self._acknowledged.set()
        await self._send({"type": "connection_ack"})

    def _subscribe(self, message: Mapping[str, Any]) -> None:
        if not self._acknowledged.is_set():
            raise _CloseError(4401, "Unauthorized")
        id_ = _id(message)
        payload = message.get("payload")
        if not isinstance(payload, dict) or not isinstance(payload.get("query", ""), str):
            raise _CloseError(4400, "payload.query must be a string")
        if "query" not in payload and not payload.keys() & {"documentId", "extensions"}:
            raise _CloseError(4400, "payload.query is missing, and nothing names a document")
        if id_ in self._running:
            raise _CloseError(4409, f"Subscriber for {id_[:40]} already exists")
        self.operations += 1
        crowded = len(self._running) >= MOST_SUBSCRIPTIONS
        self._running[id_] = asyncio.create_task(self._operation(id_, payload, crowded=crowded))

    async def _operation(self, id_: str, payload: Mapping[str, Any], *, crowded: bool) -> None:
        try:
            if crowded:
                raise BadRequestError(f"At most {MOST_SUBSCRIPTIONS} operations at a time.")
            persisted = self._sockets.endpoint.persisted
            request = from_parts(payload, {}, only_query=False, persisted=persisted)
            request = asked_by(self._known, self._socket.scope, request)
            self._sockets.endpoint.executor.budgets.require(request.payer)
            await self._run(id_, request, seen_of(payload))
        except ApiError as error:
            answer = refused([refusal_of(error)])
            self._sockets.endpoint.figures.answered(answer, over="websocket")
            await self._last(id_, {"type": "error", "id": id_, "payload": answer.body["errors"]})
        except (WebSocketDisconnect, GoingAwayError):
            _log.debug("a socket went away while it was sent to")
        except Exception as error:  # noqa: BLE001 - the last line: nothing unexpected gets out
            _log.error("an operation failed", request_id=self._request_id, exc_info=error)
            await self.end(4500, "Internal server error")

    async def _run(self, id_: str, request: GraphQLRequest, seen: str | None) -> None:
        endpoint = self._sockets.endpoint
        if not endpoint.executor.is_live(request):
            await self._once(id_, await endpoint.executor.run(request, request_id=self._request_id))
            return
        results = self._sockets.live.results(
            request, request_id=self._request_id, over="websocket", seen=seen
        )
        try:
            async for result in results:
                if result.refused:
                    errors = result.body["errors"]
                    await self._last(id_, {"type": "error", "id": id_, "payload": errors})
                    return
                payload = orjson.Fragment(result.text)
                await self._send({"type": "next", "id": id_, "payload": payload})
        finally:
            await results.aclose()

    async def _once(self, id_: str, answer: Answer) -> None:
        content = orjson.dumps(answer.body)
        self._sockets.endpoint.figures.answered(answer, over="websocket", size=len(content))
        if answer.refused:
            errors = answer.body["errors"]
            await self._last(id_, {"type": "error", "id": id_, "payload": errors})
            return
        await self._send({"type": "next", "id": id_, "payload": orjson.Fragment(content)})
        await self._last(id_, {"type": "complete", "id": id_})

    async def _last(self, id_: str, message: Mapping[str, Any]) -> None:
        """Forget the operation before its last message: the client may use its id again."""
        self._running.pop(id_, None)
        await self._send(message)

    async def _send(self, message: Mapping[str, Any]) -> None:
        text = orjson.dumps(message).decode()
        async with self._sending:
            try:
                await self._socket.send_text(text)
            except RuntimeError as error:
                # Starlette's word for a socket that was closed meanwhile.
                raise WebSocketDisconnect(1006) from error


def _object(text: str) -> dict[str, Any]:
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _CloseError(4400, "Not JSON") from error
    if not isinstance(message, dict):
        raise _CloseError(4400, "Not an object")
    return message


def _id(message: Mapping[str, Any]) -> str:
    id_ = message.get("id")
    if not isinstance(id_, str) or not id_:
        raise _CloseError(4400, "id must be a string")
    return id_
