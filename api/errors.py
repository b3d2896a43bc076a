"""The errors of the API: what happened, whose turn it is, and what a client is told.

Stands apart so that one rule decides what leaves the process: an `ApiError` speaks to the client
and carries a code; anything else is masked to one sentence with the request's id, and its text
goes to the log.
"""

from collections.abc import Mapping
from typing import Any, Final

from graphql import GraphQLError


class ApiError(GraphQLError):
    """A problem whose message is meant for the client. `code` ends up in `extensions.code`."""

    code = "INTERNAL_SERVER_ERROR"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message, extensions={"code": self.code, **details})


class BadUserInputError(ApiError):
    """An argument is well-formed GraphQL and still makes no sense. The client must change it."""

    code = "BAD_USER_INPUT"


class StaleError(ApiError):
    """The data do not contain what the client asked for. Ask again later."""

    code = "STALE"


class BadRequestError(ApiError):
    """The HTTP request holds no GraphQL request. The client must change it."""

    code = "BAD_REQUEST"


class UnavailableError(ApiError):
    """The database cannot be read now: away, full, or not set up. Ask again; nothing was done."""

    code = "UNAVAILABLE"


class TimedOutError(ApiError):
    """The database took longer than a statement may. Ask for less."""

    code = "TIMEOUT"


class RateLimitedError(ApiError):
    """The caller has asked for too much in a time, or holds too much. Ask again after a while."""

    code = "RATE_LIMITED"


class TooComplexError(ApiError):
    """The operation asks for more than one may. Ask for less at once."""

    code = "QUERY_TOO_COMPLEX"


class BuildGoneError(Exception):
    """The build that a statement named is not the live one any more. Run the operation again."""


MASKED: Final = "Something went wrong here. The request id finds it in our log."
WHOLE_OPERATION: Final = (UnavailableError, TimedOutError, StaleError, TooComplexError)


def cause_of(error: GraphQLError) -> BaseException:
    """The exception at the bottom of a located GraphQL error."""
    cause: BaseException = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause


def unexpected(error: GraphQLError) -> BaseException | None:
    """What the log must hear of, or None: the error is meant for the client."""
    cause = cause_of(error)
    return None if isinstance(cause, ApiError) else cause


def shown(error: GraphQLError, *, request_id: str) -> dict[str, Any]:
    """An error of the execution as the client sees it."""
    formatted = dict(error.formatted)
    cause = cause_of(error)
    if isinstance(cause, ApiError):
        extensions: Mapping[str, Any] = cause.extensions or {}
        return {**formatted, "message": cause.message, "extensions": dict(extensions)}
    return {
        **formatted,
        "message": MASKED,
        "extensions": {"code": "INTERNAL_SERVER_ERROR", "requestId": request_id},
    }


def refusal_of(error: ApiError) -> dict[str, Any]:
    """An error without a place in the document, as the client sees it."""
    return {"message": error.message, "extensions": dict(error.extensions or {})}


def with_code(error: GraphQLError, code: str) -> dict[str, Any]:
    """An error that was found before execution, as the client sees it."""
    return {**error.formatted, "extensions": {**(error.extensions or {}), "code": code}}
