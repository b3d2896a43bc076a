"""The JSON lists in rows: from a column's text to the objects that an answer shows.

The statement returns such a column as it is stored, because to take it apart takes PostgreSQL
longer than all the rest of a row. What the worker writes has one form, which is also the one that
is shown: a pattern tells, and then only names change, and nothing is decoded. Whatever looks
different is decoded and shown as the plain path would do it.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Column

from api.chain import MARK
from api.kinds import BOOLEAN, INT, Kind, kind_of
from api.tree import Items, TypeName

MARKED: Final = MARK.encode()
"""No text that the worker writes has it: JSON escapes it."""
_REMEMBERED: Final = 1_000
_INT_MAX: Final = 2**31 - 1


class BrokenListError(ValueError):
    """A list that the types of the schema cannot show."""


class Listed:
    """One field that shows a list, with the parts that are asked for."""

    def __init__(self, field: Items) -> None:
        assert field.field.list_of is not None
        parts = field.field.list_of.parts
        self._nullable = field.field.nullable
        self._fields = field.fields
        self._kinds = {part.name: kind_of(part) for part in parts}
        self._may_be_null = {part.name for part in parts if part.nullable}
        self._form = _form(parts, self._kinds)
        self._renames = _renames(field.fields, [*self._kinds])
        self._template, self._places = _template(field.fields, [*self._kinds])

    def all_shown(self, texts: Sequence[bytes]) -> list[bytes]:
        """The lists as JSON, from the texts of a column. BrokenListError: one has no such form."""
        if self._form is not None and self._renames is not None:
            text = MARKED.join(texts)  # in one go: each call would cost more than its text
            if self._form.several.fullmatch(text) is not None:
                for stored, shown in self._renames:
                    text = text.replace(stored, shown)
                return text.split(MARKED)
        return [self.shown(each) for each in texts]

    def shown(self, text: bytes) -> bytes:
        """The list as JSON, from a column's text. BrokenListError: it has no such form."""
        if self._form is None or self._form.whole.fullmatch(text) is None:
            return self._decoded(text)
        if self._renames is not None:
            for stored, shown in self._renames:
                text = text.replace(stored, shown)
            return text
        found = self._form.item.findall(text)
        each = (self._template % tuple([tokens[at] for at in self._places]) for tokens in found)
        return b"[%b]" % b",".join(each)

    def _decoded(self, text: bytes) -> bytes:
        try:
            listed = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise BrokenListError from error
        if listed is None and self._nullable:
            return b"null"
        if not isinstance(listed, list):
            raise BrokenListError
        return b"[%b]" % b",".join(self._object(each) for each in listed)

    def _object(self, item: Any) -> bytes:
        try:
            tokens = {name: _token(kind, item[name]) for name, kind in self._kinds.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenListError from error
        members = [(key.encode(), self._member(asked, tokens)) for key, asked in self._fields]
        return b"{%b}" % b",".join(b'"%b":%b' % member for member in members)

    def _member(self, asked: TypeName | str, tokens: Mapping[str, bytes | None]) -> bytes:
        if isinstance(asked, TypeName):
            return f'"{asked.name}"'.encode()
        token = tokens[asked]
        if token is None and asked not in self._may_be_null:
            raise BrokenListError
        return token or b"null"


@lru_cache(_REMEMBERED)
def listed(field: Items) -> Listed:
    """How a field of a plan shows its lists."""
    return Listed(field)


class _Form(NamedTuple):
    """What the worker writes: one object, with a group for each part; a list; lists, joined."""

    item: re.Pattern[bytes]
    whole: re.Pattern[bytes]
    several: re.Pattern[bytes]


def _form(parts: Sequence[Column[Any]], kinds: Mapping[str, Kind]) -> _Form | None:
    """None: a part is of a kind that no pattern knows."""
    members = []
    for part in parts:
        written = kinds[part.name].written
        if written is None:
            return None
        token = f"{written}|null" if part.nullable else written
        members.append((re.escape(part.name), token))

    def item(group: str) -> str:
        return r"\{" + ",".join(f'"{name}":({group}{token})' for name, token in members) + r"\}"

    whole = rf"\[(?:{item('?:')}(?:,(?=\{{)|(?=\])))*\]".encode()
    several = b"%b(?:%b%b)*" % (whole, MARKED, whole)
    return _Form(re.compile(item("").encode()), re.compile(whole), re.compile(several))


def _renames(
    fields: Sequence[tuple[str, TypeName | str]], names: Sequence[str]
) -> list[tuple[bytes, bytes]] | None:
    """What makes of a stored object the one that is shown, if it is all of it and in its order.

    No value in the known form has a name and a colon in it, so each is met as a key only.
    """
    if [asked for _, asked in fields] != [*names]:
        return None
    changed = [(name, key) for (key, _), name in zip(fields, names, strict=True) if key != name]
    if any(key in names for _, key in changed):
        return None
    return [(f'"{name}":'.encode(), f'"{key}":'.encode()) for name, key in changed]


def _template(
    fields: Sequence[tuple[str, TypeName | str]], names: Sequence[str]
) -> tuple[bytes, list[int]]:
    """An object with places for tokens, and which of the stored ones stand there."""
    members = [
        f'"{key}":"{asked.name}"' if isinstance(asked, TypeName) else f'"{key}":%b'
        for key, asked in fields
    ]
    places = [names.index(asked) for _, asked in fields if isinstance(asked, str)]
    return f"{{{','.join(members)}}}".encode(), places


def _token(kind: Kind, value: Any) -> bytes | None:
    """A value as it stands in an answer. TypeError, ValueError: it is none of its kind."""
    if value is None:
        return None
    if kind.json_is_text:
        text = kind.to_text(kind.from_text(value))
    elif type(value) is not (bool if kind is BOOLEAN else int):
        raise TypeError(value)
    elif kind is INT and not -_INT_MAX - 1 <= value <= _INT_MAX:
        raise ValueError(value)
    else:
        text = kind.to_text(value)
    match kind.shown:
        case "string":
            return orjson.dumps(text)
        case "quoted":
            return f'"{text}"'.encode()
        case "bare":
            return text.encode()
