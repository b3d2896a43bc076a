"""Whether an answer would be the same again, told without making it.

`data` follows from what was asked, who asked, the code that answers and its settings, and what the
views hold; that last is named by the build, its position and its change counter, which rises where
rows change and no position moves. So the tag is exact for `data`; `extensions` are not part of it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final

import orjson
from graphql import FieldNode, FragmentSpreadNode, InlineFragmentNode, SelectionSetNode

from api.callers import Caller
from api.documents import Operation
from api.position import Consistency

_RELEASE: Final = version("viewkeeper")
_TIMED: Final = "position"
"""The root field whose `lagMs`, `asOf` and ends change though no event came."""


def tag(
    consistency: Consistency,
    *,
    caller: Caller | None,
    query: str,
    operation_name: str | None,
    variables: Mapping[str, Any] | None,
    shaped_by: Sequence[int],
) -> str:
    """The weak entity tag of an answer, as the header has it.

    `shaped_by` are the settings that `data` depends on.
    """
    who = None if caller is None else (caller.role, caller.customer_id)
    held = (consistency.build, consistency.token, consistency.change_counter)
    asked = (query, operation_name, dict(variables or {}))
    content = orjson.dumps((_RELEASE, shaped_by, held, who, asked), option=orjson.OPT_SORT_KEYS)
    return f'W/"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def matches(tag: str, if_none_match: str) -> bool:
    """Whether the header names the tag; `*` asks for something else."""
    strong = tag.removeprefix("W/")
    return strong in (each.strip().removeprefix("W/") for each in if_none_match.split(","))


def has_tag(operation: Operation) -> bool:
    """Whether the same views always give the same data: not where it tells how old they are."""
    return operation.is_query and operation.reads_views and not _is_timed(operation)


@lru_cache(500)
def _is_timed(operation: Operation) -> bool:
    fragments = operation.fragments

    def timed(selections: SelectionSetNode) -> bool:
        for node in selections.selections:
            if isinstance(node, FieldNode):
                if node.name.value == _TIMED:
                    return True
            elif isinstance(node, InlineFragmentNode):
                if timed(node.selection_set):
                    return True
            elif isinstance(node, FragmentSpreadNode) and timed(
                fragments[node.name.value].selection_set
            ):
                return True
        return False

    return timed(operation.definition.selection_set)
