"""GraphQL over server-sent events: one request, one stream of results.

Follows the "distinct connections" mode of the `graphql-sse` project: `next` events, then
`complete`. Stands apart because its responses have no end of their own.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, suppress
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from api.auth import Known
from api.errors import ApiError
from api.execute import Answer, GraphQLRequest, refused
from api.http import Endpoint, StatusError, admitted, asked_by, from_parts, refusing, seen_of
from api.live import GoingAwayError, LiveQueries, Result, result_of
from api.proxies import address_of

STREAM: Final = "text/event-stream"
BEAT_S: Final = 12.0
_BEAT: Final = b":\n\n"
_HEADERS: Final = {
    "Cache-Control": "private, no-store",
    "Vary": "Accept, Authorization",
    "X-Accel-Buffering": "no",
}


def are_wanted(request: Request) -> bool:
    """Whether the client asks for a stream, and not only accepts one as well."""
    accepted = request.headers.get("accept", "").lower()
    return request.method == "POST" and accepted.split(";")[0].strip() == STREAM


async def respond(
    request: Request, endpoint: Endpoint, live: LiveQueries, *, request_id: str
) -> Response:
    """A stream of results, or the refusal of it."""
    address = address_of(request.scope)
    try:
        endpoint.places.require(address)
        known, parts = await admitted(request, endpoint)
        persisted = endpoint.persisted
        asked = from_parts(parts, request.headers, only_query=False, persisted=persisted)
        asked = asked_by(known, request.scope, asked)
        endpoint.executor.budgets.require(asked.payer)
        seen = seen_of(parts)
    except (ApiError, StatusError) as error:
        refusal = refusing(request, error)
        endpoint.figures.answered(request.state.answer, over="sse")
        return refusal
    results = _results(request, asked, endpoint, live, request_id=request_id, seen=seen)
    return _Stream(_stream(results, known), endpoint.places.held_by(address))


class _Stream(StreamingResponse):
    """Holds its place until it has ended, however it does."""

    def __init__(self, content: AsyncIterator[bytes], place: AbstractContextManager[None]) -> None:
        super().__init__(content, headers=_HEADERS, media_type=STREAM)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        with self._place:
            await super().__call__(scope, receive, send)


async def _results(
    request: Request,
    asked: GraphQLRequest,
    endpoint: Endpoint,
    live: LiveQueries,
    *,
    request_id: str,
    seen: str | None,
) -> AsyncGenerator[Result, None]:
    if not endpoint.executor.is_live(asked):
        request.state.answer = answer = await endpoint.executor.run(asked, request_id=request_id)
        result = result_of(answer)
        endpoint.figures.answered(answer, over="sse", size=len(result.text))
        yield result
        return
    async for result in live.results(asked, request_id=request_id, over="sse", seen=seen):
        # What the log says of the stream: how it stood at its end.
        request.state.answer = Answer(body={}, outcome=result.outcome, ran=result.ran)
        yield result


async def _stream(
    results: AsyncGenerator[Result, None], known: Known | None
) -> AsyncIterator[bytes]:
    """Results as they come, and a comment now and then that keeps the connection open."""
    coming: asyncio.Task[Result] | None = None
    try:
        while not _is_over(known):
            coming = coming or asyncio.ensure_future(anext(results))
            done, _ = await asyncio.wait([coming], timeout=_pause_s(known))
            if not done:
                yield _BEAT
                continue
            try:
                result = coming.result()
            except StopAsyncIteration:
                break
            except GoingAwayError:
                # No `complete`: the client shall come again.
                return
            coming = None
            yield _event("next", result.text)
        else:
            error = refused([{"message": "Forbidden", "extensions": {"code": "UNAUTHENTICATED"}}])
            yield _event("next", orjson.dumps(error.body))
        yield _event("complete", b"")
    finally:
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration, GoingAwayError):
                await coming
        await results.aclose()


def _event(name: str, text: bytes) -> bytes:
    return f"event: {name}\ndata: ".encode() + text + b"\n\n"


def _pause_s(known: Known | None) -> float:
    return BEAT_S if known is None else max(min(BEAT_S, known.expires_at_s - time.time()), 0.01)


def _is_over(known: Known | None) -> bool:
    return known is not None and time.time() >= known.expires_at_s
