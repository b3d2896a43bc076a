"""From a bearer token to a caller. A token that is wrong in any way is refused without a word.

Stands apart because it is the only user of the JWT library. The algorithm is the one of the
settings, never the token's (RFC 8725); audience, issuer and expiry must be there and must fit.
"""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import jwt
import orjson
import structlog

from api.callers import Caller
from api.errors import ApiError, UnavailableError

MIN_SECRET_BYTES: Final = 32
_MAX_TOKEN_CHARS: Final = 8_192
_MAX_SUBJECT_CHARS: Final = 256
_FRESH_S: Final = 600.0
_STALE_S: Final = 3_600.0
_RETRY_S: Final = 10.0
_FETCH_TIMEOUT_S: Final = 3.0
_MAX_KEYS_BYTES: Final = 200_000

_log = structlog.get_logger(__name__)


class UnauthenticatedError(ApiError):
    """The request has no token that we accept. It is never said why: that would help to guess."""

    code = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("Send a valid bearer token.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """Which tokens are good. Exactly one of `secret` (HS256) and `jwks_url` (RS256) is given."""

    audience: str
    issuer: str
    secret: str | None = None
    jwks_url: str | None = None
    leeway_s: int = 10
    role_claim: str = "role"
    customer_claim: str = "customer_id"


@dataclass(frozen=True, slots=True)
class Known:
    """A caller, and the moment (seconds since 1970) from which that is no longer known."""

    caller: Caller
    expires_at_s: float
    subject: str
    """Whom the token is about: callers who see the same may be many."""


class Gate:
    """Lets callers in by their tokens."""

    def __init__(self, rules: TokenRules) -> None:
        self._rules = rules
        self._keys = KeySet(rules.jwks_url) if rules.jwks_url else None

    async def known(self, header: str | None) -> Known:
        """The caller of an `Authorization` header.

        UnauthenticatedError: there is no good token. UnavailableError: the keys that would tell
        cannot be fetched now.
        """
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(token := token.strip()) <= _MAX_TOKEN_CHARS:
            raise UnauthenticatedError
        try:
            claims = jwt.decode(
                token,
                await self._key(token),
                algorithms=["HS256" if self._keys is None else "RS256"],
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                leeway=self._rules.leeway_s,
                options={"require": ["exp", "aud", "iss"]},
            )
            caller = self._caller(claims)
            expires_at_s = float(claims["exp"]) + self._rules.leeway_s
            return Known(caller, expires_at_s, _subject(claims, caller))
        # The library lets a few errors of Python through for claims of odd types.
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            _log.info("a token is refused", reason=str(error))
            raise UnauthenticatedError from error

    async def _key(self, token: str) -> Any:
        if self._keys is None:
            return self._rules.secret
        return await self._keys.key(jwt.get_unverified_header(token).get("kid"))

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        role, customer = claims.get(self._rules.role_claim), claims.get(self._rules.customer_claim)
        if role == "operator":
            return Caller(role="operator")
        if role == "customer" and isinstance(customer, str) and customer and "\0" not in customer:
            return Caller(role="customer", customer_id=customer)
        raise jwt.InvalidTokenError("the claims name no role, or a customer without an id")


def _subject(claims: Mapping[str, Any], caller: Caller) -> str:
    subject = claims.get("sub")
    if isinstance(subject, str) and 0 < len(subject) <= _MAX_SUBJECT_CHARS:
        return f"subject {subject}"
    return f"{caller.role} {caller.customer_id}"


class KeySet:
    """The public keys behind a URL. Good ones are served while new ones are fetched beside.

    Fetched when they are old or an id is unknown, by one task for all, and not often. Only a caller
    whose key is not there waits for it. Keys that could not be fetched anew for long are not
    trusted any more: one of them may have been taken back.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str | None, Any] = {}
        self._fetched_at_s = self._tried_at_s = -math.inf
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, key_id: object) -> Any:
        """The key with that id. InvalidKeyError: there is none. UnavailableError: cannot tell."""
        name = key_id if isinstance(key_id, str) else None
        if not self._are_younger_than(_FRESH_S) or self._found(name) is None:
            self._begin_to_fetch()
        if not self._are_younger_than(_STALE_S) or self._found(name) is None:
            await self._until_fetched()
        if not self._are_younger_than(_STALE_S):
            raise UnavailableError("The keys that tokens are signed with cannot be fetched now.")
        key = self._found(name)
        if key is None:
            raise jwt.InvalidKeyError("no such key")
        return key

    def _are_younger_than(self, age_s: float) -> bool:
        return bool(self._keys) and time.monotonic() - self._fetched_at_s < age_s

    def _found(self, name: str | None) -> Any:
        if name is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    def _begin_to_fetch(self) -> None:
        if self._fetching is None and time.monotonic() - self._tried_at_s > _RETRY_S:
            self._tried_at_s = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch())

    async def _until_fetched(self) -> None:
        if self._fetching is not None:
            # One who goes away takes nothing from the others.
            await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_S):
                found = jwt.PyJWKSet.from_dict(orjson.loads(await _body(self._url)))
        except Exception as error:  # noqa: BLE001 - whatever another server sends, ours stay good
            _log.warning("keys cannot be fetched", url=self._url, error=repr(error))
        else:
            self._keys = {each.key_id: each.key for each in found.keys if _can_sign(each)}
            self._fetched_at_s = time.monotonic()
        finally:
            self._fetching = None


def _can_sign(key: jwt.PyJWK) -> bool:
    return key.key_type == "RSA" and key.public_key_use in (None, "sig")


async def _body(url: str) -> bytes:
    """What is there. ValueError: it is too large, and was not read to its end."""
    body = b""
    async with (
        httpx.AsyncClient(timeout=_FETCH_TIMEOUT_S) as client,
        client.stream("GET", url) as response,
    ):
        response.raise_for_status()
        async for part in response.aiter_bytes():
            body += part
            if len(body) > _MAX_KEYS_BYTES:
                raise ValueError("the key set is too large")
    return body
