"""GraphQL over HTTP: from a request's bytes to a GraphQL request, and from an answer to a response.

Follows the GraphQL-over-HTTP specification: content negotiation, GET for queries, and status codes
that differ between `application/graphql-response+json` and the older `application/json`. Stands
apart from execution, which knows no HTTP, and from the routes, which know nothing else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from api.auth import Gate, Known
from api.documents import MethodError, refusal
from api.errors import ApiError, BadRequestError, refusal_of
from api.execute import Answer, Executor, GraphQLRequest, refused
from api.figures import Figures
from api.limits import Limits
from api.persisted import Persisted
from api.places import Places
from api.proxies import address_of
from api.read import RETRY_AFTER_S

MODERN: Final = "application/graphql-response+json"
PLAIN: Final = "application/json"

AT_LEAST_HEADER: Final = "viewkeeper-at-least"
MAX_STALENESS_HEADER: Final = "viewkeeper-max-staleness-ms"
TIMEOUT_HEADER: Final = "viewkeeper-timeout-ms"
POSITION_HEADER: Final = "Viewkeeper-Position"
LAG_HEADER: Final = "Viewkeeper-Lag-Ms"

PREFLIGHT_HEADERS: Final = (
    "viewkeeper-preflight",
    "apollo-require-preflight",
    "x-apollo-operation-name",
    "authorization",
)
"""A browser asks the server before it lets a page of another origin send one of these."""

ALLOWED_HEADERS: Final = (
    *PREFLIGHT_HEADERS,
    AT_LEAST_HEADER,
    MAX_STALENESS_HEADER,
    TIMEOUT_HEADER,
    "content-type",
    "if-none-match",
    "x-request-id",
    "traceparent",
)
EXPOSED_HEADERS: Final = (POSITION_HEADER, LAG_HEADER, "ETag", "Retry-After", "X-Request-Id")

_EITHER_WAY: Final = {
    "UNAUTHENTICATED": 401,
    "RATE_LIMITED": 429,
    "UNAVAILABLE": 503,
    "INTERNAL_SERVER_ERROR": 500,
}
_STATUS: Final = {**_EITHER_WAY, "STALE": 503, "TIMEOUT": 504, "PERSISTED_QUERY_NOT_FOUND": 200}
_WHEN_PLAIN: Final = {**_EITHER_WAY, "BAD_REQUEST": 400}
_PRIVATE: Final = {
    "Cache-Control": "private, no-cache",
    "Vary": "Accept, Authorization",
}
_REMEMBERED: Final = 100
_RETRIED: Final = ("UNAVAILABLE", "STALE", "RATE_LIMITED")


class StatusError(Exception):
    """The HTTP request is refused with a status of its own."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What /graphql answers with, and whom. Without a gate everybody is let in."""

    executor: Executor
    figures: Figures
    limits: Limits
    persisted: Persisted
    places: Places
    gate: Gate | None = None
    get_needs_preflight: bool = True


def refusing(request: HTTPConnection, error: ApiError | StatusError) -> Response:
    """The response to a request that cannot be answered in the way that it wants."""
    if isinstance(error, StatusError):
        request.state.answer = answer = refused([refusal(error.message, "BAD_REQUEST")])
        return _bytes(answer, PLAIN, status=error.status, headers=error.headers)
    request.state.answer = answer = refused([refusal_of(error)])
    return _bytes(answer, PLAIN, status=_status(answer, MODERN))


async def respond(request: Request, endpoint: Endpoint, *, request_id: str) -> Response:
    """The response to a request at /graphql."""
    media_type = PLAIN
    try:
        headers = _headers(request)
        media_type = _media_type(headers.get("accept"))
        known = await _known(headers, endpoint)
        asked = asked_by(known, request.scope, await _asked(request, headers, endpoint))
        answer = await endpoint.executor.run(asked, request_id=request_id)
    except StatusError as error:
        return refusing(request, error)
    except ApiError as error:
        answer = refused([refusal_of(error)])
    except MethodError:
        answer = refused([refusal("GET is for queries: send this by POST.", "BAD_REQUEST")])
        request.state.answer = answer
        return _bytes(answer, media_type, status=405, headers={"Allow": "POST"})
    if answer.not_modified:
        request.state.answer = answer
        headers = {**_PRIVATE, **_standing(answer), "ETag": str(answer.tag)}
        return Response(status_code=304, headers=headers)
    request.state.answer = answer
    tagged = {} if answer.tag is None else {"ETag": answer.tag}
    return _bytes(answer, media_type, status=_status(answer, media_type), headers=tagged)


def _bytes(
    answer: Answer,
    media_type: str,
    *,
    status: int,
    headers: Mapping[str, str] | None = None,
) -> Response:
    retry = {"Retry-After": str(_retry_after_s(answer))} if answer.outcome in _RETRIED else {}
    who = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return Response(
        orjson.dumps(answer.body),
        status_code=status,
        headers={**_PRIVATE, **(headers or {}), **retry, **who, **_standing(answer)},
        media_type=f"{media_type}; charset=utf-8",
    )


def _retry_after_s(answer: Answer) -> int:
    """In whole seconds, as the header wants it."""
    after_ms: int = answer.body["errors"][0]["extensions"].get("retryAfterMs", 0)
    return max(math.ceil(after_ms / 1000), RETRY_AFTER_S)


def _standing(answer: Answer) -> dict[str, str]:
    """What the answer contains, for clients that read headers: beside data and beside `STALE`."""
    consistency = answer.body.get("extensions", {}).get("consistency")
    if answer.outcome == "STALE" and consistency is None:
        consistency = answer.body["errors"][0]["extensions"]
    told = consistency or {}
    headers = {POSITION_HEADER: told.get("position"), LAG_HEADER: told.get("lagMs")}
    return {name: str(value) for name, value in headers.items() if value is not None}


def _status(answer: Answer, media_type: str) -> int:
    if not answer.refused:
        return 200
    if media_type == PLAIN:
        return _WHEN_PLAIN.get(answer.outcome, 200)
    return _STATUS.get(answer.outcome, 400)


@lru_cache(_REMEMBERED)
def _media_type(accept: str | None) -> str:
    """What the client wants; the older type when it does not say."""
    if not accept or not accept.strip():
        return PLAIN
    best: tuple[float, str] | None = None
    for part in accept.split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        offered = MODERN if name == MODERN else PLAIN
        if name in (MODERN, PLAIN, "application/*", "*/*"):
            quality = _quality(parameters)
            if quality > 0 and (best is None or quality > best[0]):
                best = quality, offered
    if best is None:
        raise StatusError(406, f"This endpoint answers {MODERN} or {PLAIN}.")
    return best[1]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


async def admitted(request: Request, endpoint: Endpoint) -> tuple[Known | None, dict[str, Any]]:
    """Who sends a POST, and its JSON. ApiError: not admitted, or there is no request in it."""
    headers = _headers(request)
    return await _known(headers, endpoint), await _posted(request, headers, endpoint)


def _headers(request: Request) -> dict[str, str]:
    """By their names in small letters; of several the first, as Starlette has it."""
    pairs = reversed(request.scope["headers"])
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}


def asked_by(
    known: Known | None, scope: Mapping[str, Any], asked: GraphQLRequest
) -> GraphQLRequest:
    """The request, with who sees its answer and who pays for it: the caller, or the address."""
    if known is None:
        return asked._replace(payer=f"address {address_of(scope)}")
    return asked._replace(caller=known.caller, payer=known.subject)


async def _known(headers: Mapping[str, str], endpoint: Endpoint) -> Known | None:
    if endpoint.gate is None:
        return None
    return await endpoint.gate.known(headers.get("authorization"))


async def _asked(
    request: Request, headers: Mapping[str, str], endpoint: Endpoint
) -> GraphQLRequest:
    if request.method == "GET":
        if endpoint.get_needs_preflight and not _is_preflighted(headers):
            raise BadRequestError(f"A GET needs the header {PREFLIGHT_HEADERS[0]!r}; or use POST.")
        asked = from_parts(
            _from_url(request), headers, only_query=True, persisted=endpoint.persisted
        )
        return asked._replace(if_none_match=headers.get("if-none-match"))
    if request.method != "POST":
        raise StatusError(405, "Use POST, or GET for queries.", {"Allow": "GET, POST"})
    parts = await _posted(request, headers, endpoint)
    return from_parts(parts, headers, only_query=False, persisted=endpoint.persisted)


async def _posted(
    request: Request, headers: Mapping[str, str], endpoint: Endpoint
) -> dict[str, Any]:
    _require_json(headers.get("content-type", ""))
    most_bytes = endpoint.limits.body_bytes
    try:
        parts = orjson.loads(await _body(request, headers, most_bytes=most_bytes))
    except orjson.JSONDecodeError as error:
        raise BadRequestError("The body is not JSON.") from error
    if not isinstance(parts, dict):
        raise BadRequestError("The body must be one JSON object with a `query`.")
    return parts


def _is_preflighted(headers: Mapping[str, str]) -> bool:
    return any(name in headers for name in PREFLIGHT_HEADERS)


async def _body(request: Request, headers: Mapping[str, str], *, most_bytes: int) -> bytes:
    told = headers.get("content-length", "")
    length = int(told) if told.isascii() and told.isdigit() and len(told) < 16 else 0
    body = b""
    if length <= most_bytes:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most_bytes:
                break
    if max(length, len(body)) > most_bytes:
        raise StatusError(413, f"The body is larger than {most_bytes} bytes.")
    return body


@lru_cache(_REMEMBERED)
def _require_json(content_type: str) -> None:
    name, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [each.partition("=")[2].strip('"') for each in parameters if "charset" in each]
    if name != PLAIN or any(charset not in ("utf-8", "utf8") for charset in charsets):
        raise StatusError(415, f"Send {PLAIN} in UTF-8.", {"Accept-Post": PLAIN})


def _from_url(request: Request) -> dict[str, Any]:
    parts: dict[str, Any] = dict(request.query_params)
    for name in ("variables", "extensions"):
        if name in parts:
            try:
                parts[name] = orjson.loads(parts[name])
            except orjson.JSONDecodeError as error:
                raise BadRequestError(f"{name} is not JSON.") from error
    return parts


def seen_of(parts: Mapping[str, Any]) -> str | None:
    """The id of the last result that a client of a live query has seen."""
    demands = _part(_part(parts, "extensions", dict) or {}, "consistency", dict) or {}
    seen: str | None = _part(demands, "resultId", str)
    return seen


def from_parts(
    parts: Mapping[str, Any], headers: Mapping[str, str], *, only_query: bool, persisted: Persisted
) -> GraphQLRequest:
    """A request from its JSON. BadRequestError: a part is missing or of the wrong type; and the
    errors of `Persisted.text`."""
    query = persisted.text(parts)
    if query is None:
        raise BadRequestError("`query` is missing: the text of a GraphQL document.")
    demands = _part(_part(parts, "extensions", dict) or {}, "consistency", dict) or {}
    at_least = _part(demands, "atLeast", str)
    staleness_ms = _part(demands, "maxStalenessMs", int)
    timeout_ms = _part(demands, "timeoutMs", int)
    return GraphQLRequest(
        query=query,
        variables=_part(parts, "variables", dict),
        operation_name=_part(parts, "operationName", str) or None,
        at_least=headers.get(AT_LEAST_HEADER) if at_least is None else at_least,
        max_staleness_ms=(
            _number(headers, MAX_STALENESS_HEADER) if staleness_ms is None else staleness_ms
        ),
        timeout_ms=_number(headers, TIMEOUT_HEADER) if timeout_ms is None else timeout_ms,
        only_query=only_query,
    )


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 12:
        raise BadRequestError(f"{name.title()} must be a whole number.")
    return int(text)


def _part(parts: Mapping[str, Any], name: str, kind: type) -> Any:
    value = parts.get(name)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        words = {str: "a string", dict: "an object", int: "a whole number"}
        raise BadRequestError(f"`{name}` must be {words[kind]}.")
    return value
