"""Where a request comes from: the peer of the connection, or whom a trusted proxy names.

Stands apart because everything that counts by address, or logs one, must agree on it; so this is
the outermost layer of the application, and no server setting has a say in it.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

_FORWARDED_HOST: Final = b"x-forwarded-host"
_REMEMBERED: Final = 4096
_ONE_HOME: Final = 64
"""Bits of an IPv6 address that one subscriber has: the rest is up to the subscriber."""


class Proxies:
    """Takes a client's address, scheme and host from the headers of trusted peers, of no others."""

    def __init__(self, app: ASGIApp, *, trusted: list[str]) -> None:
        self._app = app
        self._forwarded = ProxyHeadersMiddleware(cast(Any, self._named), trusted_hosts=trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        peer = scope.get("client")
        if peer is not None and peer[0] in self._forwarded.trusted_hosts:
            scope = {**scope, "headers": _with_host(scope["headers"])}
        await self._forwarded(cast(Any, scope), cast(Any, receive), cast(Any, send))

    async def _named(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def address_of(scope: Mapping[str, Any]) -> str:
    """The client's address, as far as it tells clients apart."""
    client = scope.get("client")
    return "local" if client is None else _told_apart(str(client[0]))


@lru_cache(_REMEMBERED)
def _told_apart(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> _ONE_HOME << _ONE_HOME))
    return str(address)


def _with_host(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The host that the client asked for, where the proxy asks for another."""
    hosts = [value for name, value in headers if name == _FORWARDED_HOST]
    if not hosts:
        return headers
    host = hosts[-1].split(b",")[-1].strip()
    return [*((name, value) for name, value in headers if name != b"host"), (b"host", host)]
