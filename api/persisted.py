"""Documents that a client names instead of sending: automatic persisted queries, trusted documents.

Automatic ones follow Apollo's protocol: a client sends a hash, is told `PersistedQueryNotFound`,
and sends the text once beside its hash; they save bytes and allow nothing new. Trusted documents
come from a manifest that was made when the clients were built, `{id: document}` as graphql-codegen
writes it; where only those run, nobody can ask for anything else.
Protocol: https://www.apollographql.com/docs/apollo-server/performance/apq
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from api.errors import ApiError, BadRequestError

REMEMBERED: Final = 1_000
_VERSION: Final = 1


class NotFoundError(ApiError):
    """Nobody has sent the text of that hash yet, or it was forgotten. Send it beside its hash."""

    code = "PERSISTED_QUERY_NOT_FOUND"


class NotTrustedError(ApiError):
    """Only documents of the manifest are run here, and this is none of them."""

    code = "QUERY_NOT_IN_SAFELIST"


class ManifestError(ValueError):
    """The manifest of trusted documents can't be read. Says where and why."""


class Persisted:
    """The documents that are known by a name. Texts longer than `most_bytes` are not remembered."""

    def __init__(
        self, trusted: Mapping[str, str] | None = None, *, only_trusted: bool, most_bytes: int
    ) -> None:
        self._trusted = dict(trusted or {})
        self._texts = frozenset(self._trusted.values())
        self._only_trusted = only_trusted
        self._most_bytes = most_bytes
        self._sent: OrderedDict[str, str] = OrderedDict()

    def text(self, parts: Mapping[str, Any]) -> str | None:
        """The document that a request sends or names; None where it does neither.

        NotFoundError, NotTrustedError as their names say; BadRequestError: a hash is not that of
        the text beside it, or the protocol is another one.
        """
        # An empty text stands for none: clients of the socket protocol must send one.
        text, name = _text_of(parts, "query") or None, _name_of(parts)
        if text is None and name is None:
            return None
        if name in self._trusted and text in (None, self._trusted[name]):
            return self._trusted[name]
        if self._only_trusted:
            if text in self._texts:
                return text
            raise NotTrustedError(
                "Only documents that were registered when the clients were built are run here."
            )
        if name is None:
            return text
        if text is None:
            return self._remembered(name)
        if hashlib.sha256(text.encode(errors="replace")).hexdigest() != name:
            raise BadRequestError("The hash is not the SHA-256 of the document beside it.")
        self._remember(name, text)
        return text

    def _remembered(self, name: str) -> str:
        text = self._sent.get(name)
        if text is None:
            raise NotFoundError("PersistedQueryNotFound")
        self._sent.move_to_end(name)
        return text

    def _remember(self, name: str, text: str) -> None:
        if len(text) <= self._most_bytes:
            self._sent[name] = text
            while len(self._sent) > REMEMBERED:
                self._sent.popitem(last=False)


def manifest(path: Path) -> dict[str, str]:
    """The documents of a manifest, by id. ManifestError: it is none."""
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ManifestError(f"{path} can't be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ManifestError(f"{path} must be one JSON object of ids and documents")
    return found


def _name_of(parts: Mapping[str, Any]) -> str | None:
    """A document's id, or the hash of Apollo's protocol; `sha256:` before either is left out."""
    name = _text_of(parts, "documentId")
    extensions = parts.get("extensions")
    asked = extensions.get("persistedQuery") if isinstance(extensions, dict) else None
    if name is None and asked is not None:
        if not isinstance(asked, dict) or asked.get("version") != _VERSION:
            raise BadRequestError(f"`persistedQuery` must be of version {_VERSION}.")
        name = _text_of(asked, "sha256Hash")
    return None if name is None else name.removeprefix("sha256:")


def _text_of(parts: Mapping[str, Any], name: str) -> str | None:
    text = parts.get(name)
    if text is not None and not isinstance(text, str):
        raise BadRequestError(f"`{name}` must be a string.")
    return text
