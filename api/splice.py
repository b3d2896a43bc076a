"""From the texts that the compiled statement returned to the bytes of `data`.

Stands apart from SQL and from HTTP. What is left to do here: the parts that the statement marks,
opaque texts (ids and cursors), which `opaque.py` and `page.py` make as for the plain path, and the
lists of `lists.py`; the root field `position`; and the names of the root fields.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, Final

import orjson

from api.bind import Bound
from api.compile import reads_views
from api.lists import MARKED, listed
from api.names import camel
from api.objects import position
from api.opaque import encoded
from api.page import cursor_prefix, sealed
from api.position import Consistency
from api.route import Compiled
from api.tree import Items, Standing, Told, TypeName

_LIST: Final = b"*"


def spliced(compiled: Compiled, texts: Sequence[bytes | None], consistency: Consistency) -> bytes:
    """`data` as JSON. BrokenListError: a row holds a list that its type cannot show."""
    marked = _Marked(compiled.plan.lists, compiled.bound, consistency.token)
    columns = iter(texts)
    members = []
    for key, field in compiled.plan.fields:
        if reads_views(field):
            shown = marked.made_in(next(columns) or b"null")
        elif isinstance(field, TypeName):
            shown = f'"{field.name}"'.encode()
        else:
            assert isinstance(field, Standing)
            shown = orjson.dumps(_standing(field, position(consistency)))
        members.append(b'"%b":%b' % (key.encode(), shown))
    return b"{%b}" % b",".join(members)


class _Marked:
    """Makes the marked parts of one answer."""

    def __init__(self, lists: Sequence[Items], bound: Sequence[Bound], token: str) -> None:
        self._lists = [listed(each) for each in lists]
        self._bound = bound
        self._token = token
        self._prefixes: dict[bytes, str] = {}

    def made_in(self, text: bytes) -> bytes:
        """The text with every marked part made."""
        if MARKED not in text:
            return text
        parts = text.split(MARKED)
        parts[1::2] = self._made(parts[1::2])
        return b"".join(parts)

    def _made(self, marked: Sequence[bytes]) -> list[bytes]:
        made = list(marked)
        lists: dict[bytes, dict[int, bytes]] = defaultdict(dict)
        for place, part in enumerate(marked):
            if part.startswith(_LIST):
                number, _, text = part.partition(b":")
                lists[number][place] = text
            else:
                made[place] = self._opaque(part)
        for number, texts in lists.items():
            shown = self._lists[int(number[1:])].all_shown([*texts.values()])
            for place, each in zip(texts, shown, strict=True):
                made[place] = each
        return made

    def _opaque(self, part: bytes) -> bytes:
        number, bracket, texts = part.partition(b"[")
        packed = encoded(bracket + texts)
        return (sealed(self._prefix(number), packed) if number else packed).encode()

    def _prefix(self, number: bytes) -> str:
        """What all cursors of the connection with that number begin with."""
        if number not in self._prefixes:
            scope = self._bound[int(number)].scope
            assert scope is not None
            self._prefixes[number] = cursor_prefix(scope, self._token)
        return self._prefixes[number]


def _standing(field: Standing, source: Any) -> Any:
    if isinstance(source, list):
        return [_standing(field, each) for each in source]
    return {key: _told(each, source) for key, each in field.fields}


def _told(field: TypeName | Told | Standing, source: Any) -> Any:
    if isinstance(field, TypeName):
        return field.name
    value = getattr(source, _names(source.__class__)[field.name])
    if isinstance(field, Standing):
        return _standing(field, value)
    return None if value is None else field.leaf.coerce_output_value(value)


@lru_cache
def _names(type_: type[Any]) -> Mapping[str, str]:
    """As GraphQL spells them."""
    return {camel(each.name): each.name for each in fields(type_)}
