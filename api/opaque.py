"""The opaque texts of the API: global ids.

A text is base64url without padding over a JSON list of strings. Stands apart because it is made in
two ways: of a row's values, and of the JSON list that the compiled statement returns.
"""

import base64
import binascii
import json
from collections.abc import Sequence

from api.declare import ViewType


class NotOursError(ValueError):
    """A text that this API did not make, or that was changed on its way."""


def packed(parts: Sequence[str]) -> str:
    """A list of texts as one opaque text."""
    return encoded(json.dumps(list(parts), ensure_ascii=False).encode())


def unpacked(text: str) -> list[str]:
    """The list of texts. NotOursError: it is not exactly what `packed` makes."""
    try:
        parts = json.loads(decoded(text))
    except (ValueError, RecursionError) as error:
        raise NotOursError(text) from error
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise NotOursError(text)
    if any("\ud800" <= letter <= "\udfff" for part in parts for letter in part):
        raise NotOursError(text)
    if packed(parts) != text:
        raise NotOursError(text)
    return parts


def encoded(raw: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> str:
    """The inverse of `encoded`. NotOursError: another alphabet, or not UTF-8."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return raw.decode()
    except (binascii.Error, ValueError) as error:
        raise NotOursError(text) from error


def global_id(view_type: ViewType, key: Sequence[object]) -> str:
    """The id of a row: its GraphQL type and the texts of its key."""
    kinds = (view_type.fields[name].kind for name in view_type.key)
    texts = [kind.to_text(part) for kind, part in zip(kinds, key, strict=True)]
    return packed([view_type.name, *texts])


def row_of(node_id: str, types: dict[str, ViewType]) -> tuple[ViewType, tuple[object, ...]]:
    """The view type and the key that a global id names. NotOursError: it names none."""
    name, *texts = unpacked(node_id) or [""]
    view_type = types.get(name)
    if view_type is None or len(texts) != len(view_type.key):
        raise NotOursError(node_id)
    kinds = (view_type.fields[column].kind for column in view_type.key)
    try:
        key = tuple(kind.from_text(text) for kind, text in zip(kinds, texts, strict=True))
    except ValueError as error:
        raise NotOursError(node_id) from error
    if global_id(view_type, key) != node_id:
        raise NotOursError(node_id)
    return view_type, key
