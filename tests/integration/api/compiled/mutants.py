"""Compilers that are wrong in one place each: what the proof must notice.

Each patches a name in the compiler's modules, so that a rename breaks this table and not the proof.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from api import bind, chain, compile, lists, plan, route, splice  # noqa: A004 - the module's name
from api.kinds import DECIMAL, STRING
from api.sql import Sql

Patch = tuple[Any, str, Callable[[Any], Any]]
"""Where, which name, and from what is there to what is put there instead."""


def _without_tie_break(order_sql: Any) -> Any:
    return lambda order, *given, **named: order_sql(order[:-1] or order, *given, **named)


def _first_of_merged(sub: Any) -> Any:
    return lambda self, object_type, found: sub(self, object_type, found[:1])


def _without_aliases(each: Any) -> Any:
    def mutant(self: Any, collected: Any, *given: Any) -> Any:
        named = {found[0].node.name.value: found for found in collected.values()}
        return each(self, named, *given)

    return mutant


def _one_row_more(page: Any) -> Any:
    def mutant(*given: Any) -> Any:
        bound = page(*given)
        shape = bound.shape._replace(size=bound.shape.size + 1)
        return dataclasses.replace(bound, shape=shape)

    return mutant


def _shape(**given: Any) -> Callable[[Any], Any]:
    def patch(page: Any) -> Any:
        def mutant(*arguments: Any) -> Any:
            bound = page(*arguments)
            return dataclasses.replace(bound, shape=bound.shape._replace(**given))

        return mutant

    return patch


def _result(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda original: lambda *given, **named: change(original(*given, **named))


def _replaced(old: str, new: str) -> Callable[[Any], Any]:
    """A statement in which one piece of text is another."""

    def change(statement: Any) -> Any:
        return dataclasses.replace(statement, text=statement.text.replace(old, new))

    return _result(change)


def _unescaped(value: Any) -> Any:
    return lambda kind, at: value(dataclasses.replace(kind, shown="quoted"), at)


def _text_of_first_shape(compiled: Any) -> Any:
    known: dict[Any, Any] = {}

    def mutant(made: Any, shapes: Any, **named: Any) -> Any:
        # As if the shapes of the arguments had no part in the key of the cache.
        return known.setdefault(made, compiled(made, shapes, **named))

    return mutant


def _planned_once(plan_of: Any) -> Any:
    known: dict[Any, Any] = {}

    def mutant(self: Any, operation: Any, deciding: Any) -> Any:
        return known.setdefault(operation, plan_of(self, operation, deciding))

    return mutant


MUTANTS: Final[Mapping[str, Patch]] = {
    "a dropped tie-break": (compile, "order_sql", _without_tie_break),
    "a lost alias": (plan._Planning, "_each", _without_aliases),
    "an unmerged field": (plan._Planning, "_sub", _first_of_merged),
    "null where a row is missing is an object": (
        route,
        "compiled",
        _replaced(", 'null')", ", '{}')"),
    ),
    "null wherever it may be": (chain, "or_null", lambda _: lambda _: chain.Expression("'null'")),
    "a row too many": (bind, "_page", _one_row_more),
    "a page not turned round": (bind, "_page", _shape(backward=False)),
    "no filter": (bind, "sql_of", lambda _: lambda *_: Sql("true")),
    "hidden rows shown": (compile, "visible", lambda _: lambda *_: iter(())),
    "a relation by its first column": (
        compile,
        "joins",
        _result(lambda found: [next(iter(found))]),
    ),
    "a cursor that includes its row": (
        bind,
        "beyond_sql",
        _result(
            lambda sql: Sql(sql.text.replace(" > (", " >= (").replace(" < (", " <= ("), sql.values)
        ),
    ),
    "rows behind a cursor forgotten": (
        route,
        "compiled",
        _replaced("SELECT count(*) > 0 FROM", "SELECT count(*) > 1 FROM"),
    ),
    "a count without its cap": (
        route,
        "compiled",
        _replaced("least(c.found, ", "greatest(c.found, "),
    ),
    "exact a row too early": (route, "compiled", _replaced("(c.found <= ", "(c.found < ")),
    "more rows promised": (route, "compiled", _replaced("p.found > ", "p.found >= ")),
    "ids in the order of their types": (
        route,
        "compiled",
        _replaced("ORDER BY x.place", "ORDER BY x.row"),
    ),
    "money as it is stored in a list": (
        lists,
        "_token",
        lambda token: (
            lambda kind, value: token(STRING if kind.name == DECIMAL.name else kind, value)
        ),
    ),
    "a list by the names it is stored under": (lists, "_renames", lambda _: lambda *_: []),
    "parts of a list in their stored order": (
        lists,
        "_template",
        _result(lambda made: (made[0], sorted(made[1]))),
    ),
    "times without microseconds": (route, "compiled", _replaced(".US", "")),
    "texts without escapes": (chain, "value_of", _unescaped),
    "one text for all shapes": (route, "compiled", _text_of_first_shape),
    "one plan for all directives": (plan.Planner, "plan", _planned_once),
    "cursors of another connection": (
        splice._Marked,
        "_prefix",
        lambda _: lambda self, __: "WyIxIl0",
    ),
    "ids that are padded": (splice, "encoded", _result(lambda text: text + "=" * (-len(text) % 4))),
    "values in another order": (
        route.Compiled,
        "statement",
        _result(lambda made: (made[0], made[1][::-1])),
    ),
    "a literal that a variable should be": (
        route.Routes,
        "_bound",
        lambda _: lambda self, field, __: self._bound_once(field),
    ),
}
