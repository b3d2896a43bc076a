"""Requests that want to hurt: small to send, and ruinous for a server that does what they say.

Those that a document can hold are the ones of the limits' own tests; here they are put into
requests, beside those that only a transport can carry.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.unit.api.test_limits import BOMBS

_JSON: Final = {"Content-Type": "application/json"}
HARMLESS: Final = "{ __typename }"


@dataclass(frozen=True, slots=True)
class Bomb:
    """One POST."""

    content: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: dict(_JSON))


def documents(mark: str = "") -> dict[str, dict[str, Any]]:
    """Requests as JSON; another mark makes other texts of them, which no memory knows."""
    found = {}
    for name, make in BOMBS.items():
        query, variables = make()
        found[name] = {"query": f"{query} #{mark}" if mark else query, "variables": variables}
    wide = {f"k{n}": [n] for n in range(5000)}
    found["wide variables"] = {"query": NESTED_PAGES, "variables": {"w": wide}}
    found["cycles of fragments"] = {"query": _cycles(mark), "variables": {}}
    found["a long list of filters"] = {
        "query": "query ($w: OrderWhere) { orders(where: $w) { nodes { id } } }",
        "variables": {"w": {"orderId": {"in": [str(n) for n in range(5000)]}}},
    }
    found["an operation with a long name"] = {"query": HARMLESS, "operationName": "x" * 90_000}
    return found


NESTED_PAGES: Final = (
    "query ($w: OrderWhere) { orders(first: 100, where: $w) { nodes { payments(first: 100) {"
    " nodes { order { payments(first: 100) { nodes { id } } } } } } } }"
)


def _cycles(mark: str) -> str:
    fragments = " ".join(
        f"fragment F{n} on Query {{ ...F{(n + 1) % 40} ...F{(n + 7) % 40} ...F{n} }}"
        for n in range(40)
    )
    return f"{{ ...F0 }} {fragments} #{mark}"


FILTERS: Final = "query ($w: OrderWhere) { orders(where: $w) { nodes { orderId } } }"


def large_filters() -> dict[str, dict[str, Any]]:
    """Filters that are no bombs yet, and larger than any that is answered."""
    return {
        "a long list": {"orderId": {"in": [str(number) for number in range(501)]}},
        "halves of halves": _halves(8),
        "one in the other": _chained(12),
    }


def _chained(levels: int) -> dict[str, Any]:
    return {"not": _chained(levels - 1)} if levels else {"orderId": {"ne": "x"}}


def _halves(levels: int) -> dict[str, Any]:
    """A condition that doubles at every level."""
    if levels == 0:
        return {"orderId": {"ne": "x"}}
    inner = _halves(levels - 1)
    return {"or": [inner, inner]}


def bodies() -> dict[str, Bomb]:
    """What no JSON of ours could say."""
    deep = b"[" * 50_000 + b"]" * 50_000
    query = json.dumps(HARMLESS).encode()
    chunks = b'{"query": ' + query + b', "variables": '
    return {
        "a body of a megabyte": Bomb(b'{"query": "' + b"a" * 1_000_000 + b'"}'),
        "deep JSON": Bomb(chunks + b'{"a": ' + deep + b"}}"),
        "deep objects": Bomb(chunks + b'{"a":' * 9_000 + b"1" + b"}" * 9_000 + b"}"),
        "deep extensions": Bomb(
            b'{"query": ' + query + b', "extensions": ' + b'{"a":' * 9_000 + b"1" + b"}" * 9_001
        ),
        "a number without end": Bomb(chunks + b'{"a": ' + b"9" * 90_000 + b"}}"),
        "an exponent without end": Bomb(chunks + b'{"a": 1e99999999}}'),
        "half a character": Bomb(b'{"query": "\xed\xa0\x80"}'),
        "NUL in the document": Bomb(b'{"query": "{ __typename \\u0000 }"}'),
        "half a pair in the document": Bomb(b'{"query": "{ __typename \\ud800 }"}'),
        "a compressed body": Bomb(
            gzip.compress(b" " * 10_000_000), {**_JSON, "Content-Encoding": "gzip"}
        ),
        "a batch": Bomb(b"[" + b",".join([b'{"query": ' + query + b"}"] * 2_000) + b"]"),
        "a body in another alphabet": Bomb(
            '{"query": "{ __typename }"}'.encode("utf-16"),
            {"Content-Type": "application/json; charset=utf-16"},
        ),
    }


def chunked(make: Callable[[], bytes], *, times: int) -> Iterator[bytes]:
    """A body whose length nobody told."""
    for _ in range(times):
        yield make()
