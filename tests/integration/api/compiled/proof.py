"""The proof: operations at random, each answered both ways, followed from page to page.

Stands apart so that the run of CI, the long run by hand and the hunt for mutants are one thing.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from api.app import graphql_schema
from api.callers import OPERATOR, Caller
from api.route import Way
from tests.integration.api.compiled.both import Both
from tests.integration.api.compiled.hostile import CUSTOMERS
from tests.integration.api.compiled.operations import (
    Asked,
    Given,
    Maker,
    Operation,
    Pools,
    places,
    smallest,
)

_VARIATIONS = 4
_SHOWN = ("cursor", "startCursor", "endCursor")
_CALLERS = (
    None,
    None,
    OPERATOR,
    *(Caller(role="customer", customer_id=name) for name in (*CUSTOMERS, "nobody")),
)


@dataclass
class Report:
    """What was run."""

    ways: Counter[str] = field(default_factory=Counter)
    followed: int = 0

    @property
    def operations(self) -> int:
        """How many operations were answered both ways."""
        return sum(self.ways.values())


class DifferenceError(AssertionError):
    """The two ways disagree; the message holds the smallest operation on which they do."""


def prove(both: Both, pools: Pools, *, seed: int, count: int) -> Report:
    """Answer that many operations both ways. DifferenceError: two answers differ."""
    report = Report()
    maker = Maker(graphql_schema(), pools, seed)
    while report.operations < count:
        operation = maker.operation()
        for _ in range(_VARIATIONS):
            _walk(both, maker, operation, report)
            operation = maker.varied(operation)
    return report


def _walk(both: Both, maker: Maker, operation: Operation, report: Report) -> None:
    """The operation, and then some of the pages that its cursors lead to."""
    caller = maker.chance.choice(_CALLERS)
    for _ in range(maker.chance.choice((0, 1, 3)) + 1):
        data = _same(both, operation, caller, report)
        further = [*_further(maker, operation, data)] if isinstance(data, dict) else []
        if not further:
            return
        operation = maker.chance.choice(further)
        report.followed += 1


def _same(both: Both, operation: Operation, caller: Caller | None, report: Report) -> Any:
    pair = both.ask(operation.text(), operation.variables, caller)
    report.ways[pair.way or "refused"] += 1
    if pair.same and (pair.way is not Way.COMPILED or both.statements == 1):
        return pair.data

    def fails(smaller: Operation) -> bool:
        return not both.ask(smaller.text(), smaller.variables, caller).same

    if not pair.same:
        operation = smallest(operation, fails)
        pair = both.ask(operation.text(), operation.variables, caller)
    raise DifferenceError(
        f"{operation.text()}\n{operation.variables!r}\nas {caller}, {both.statements} statements\n"
        f"compiled: {pair.compiled.decode()}\nplain:    {pair.plain.decode()}"
    )


def _further(maker: Maker, operation: Operation, data: dict[str, Any]) -> Iterator[Operation]:
    """The operation with one of its connections gone on from a cursor in the data."""
    for number, (asked, path) in enumerate(places(operation)):
        for cursor in _cursors(asked, _at(data, path)):
            other = copy.deepcopy(operation)
            there = next(each for at, (each, _) in enumerate(places(other)) if at == number)
            _go_on(there, cursor, maker)
            yield other


def _go_on(asked: Asked, cursor: str, maker: Maker) -> None:
    side = maker.chance.choice(("after", "after", "before"))
    if maker.chance.random() < 0.4:
        size = asked.arguments.pop("first", None) or asked.arguments.pop("last", None)
        if size is not None:
            asked.arguments["last" if side == "before" else "first"] = size
    variable = f"cursor{len(cursor)}{side}" if maker.chance.random() < 0.5 else None
    string: Any = graphql_schema().type_map["String"]
    asked.arguments[side] = Given(string, cursor, variable)


def _at(data: Any, path: tuple[str, ...]) -> Any:
    """What stands at a path; of a list, its first."""
    for key in path:
        while isinstance(data, list):
            data = data[0] if data else None
        if not isinstance(data, dict):
            return None
        data = data.get(key)
    return data


def _cursors(asked: Asked, value: Any) -> Iterator[str]:
    while isinstance(value, list):
        value = value[-1] if value else None
    if not isinstance(value, dict):
        return
    for each in asked.inner or []:
        if isinstance(each, Asked):
            found = value.get(each.alias or each.name)
            if each.name in _SHOWN and isinstance(found, str):
                yield found
            elif each.name in ("pageInfo", "edges"):
                yield from _cursors(each, found)
