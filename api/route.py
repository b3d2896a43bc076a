"""Which way an operation is answered: compiled to one statement, or by resolvers; and why.

The one place that decides. Compiled is the rule. The plain way is for what asks about the schema,
or for another field of the root that does not come from views; for arguments that are refused (it
knows at which places of an answer they are refused); and for what a snapshot holds against
expectation: a row that the schema's types cannot show, a cursor from a position not reached.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from graphql import GraphQLError, GraphQLSchema
from graphql.execution.values import VariableValues, get_variable_values

from api.bind import Binder, Bound, Shape
from api.callers import OPERATOR, Caller
from api.chain import BROKEN
from api.compile import Statement, compiled
from api.connection import require_cursors
from api.declare import ViewType
from api.documents import REMEMBERED, Operation
from api.errors import BadUserInputError, StaleError
from api.page import Cursor, PageSizes
from api.plan import Planner
from api.position import Consistency
from api.read import Reading
from api.tree import Asking, Plan

_REMEMBERED_CHARS: Final = 16_000_000
_MAX_ERRORS: Final = 50
_BROKEN: Final = BROKEN.encode()


class Way(StrEnum):
    """How an operation is answered. All but the first are plain, each for a reason of its own."""

    COMPILED = "compiled"
    INTROSPECTION = "introspection"
    ARGUMENTS = "refused arguments"
    BROKEN = "row breaks its type"
    CURSOR = "cursor not reached"


@dataclass(frozen=True, slots=True)
class Compiled:
    """One operation of one request, ready to be read."""

    plan: Plan
    bound: Sequence[Bound]
    compiled_on: Callable[[str], Statement]

    def statement(self, build: str) -> tuple[str, list[Any]]:
        """The statement on a build, and its values."""
        statement = self.compiled_on(build)
        values = [value for each in self.bound for value in each.values]
        return statement.text, [values[number] for number in statement.used]

    @property
    def shape(self) -> str:
        """The fields that have arguments, and what of those shapes the statement: no value."""
        asked = zip(self.plan.asking, self.bound, strict=True)
        return ", ".join(f"{each.ask.node.name.value}({bound.shape})" for each, bound in asked)


class Routes:
    """Decides for every operation. Plans and statements are remembered, the oldest forgotten."""

    def __init__(
        self,
        schema: GraphQLSchema,
        types: Sequence[ViewType],
        *,
        sizes: PageSizes,
        count_cap: int,
    ) -> None:
        self._schema = schema
        self._binder = Binder(types, sizes)
        self._plan = lru_cache(REMEMBERED)(Planner(schema, types).plan)
        self._count_cap = count_cap
        self._statements = _Statements()
        nothing = VariableValues({}, {})
        self._bound_once = lru_cache(REMEMBERED)(lambda field: self._binder.bind(field, nothing))

    def route(
        self, operation: Operation, variables: Mapping[str, Any], caller: Caller | None
    ) -> Compiled | Way:
        """The compiled operation, or why it goes the plain way."""
        known = get_variable_values(
            self._schema,
            operation.definition.variable_definitions or (),
            dict(variables),
            _MAX_ERRORS,
            hide_suggestions=True,
        )
        if not isinstance(known, VariableValues):
            return Way.ARGUMENTS
        try:
            plan = self._plan(operation, _deciding(operation, known))
            bound = [] if plan is None else [self._bound(each, known) for each in plan.asking]
        except GraphQLError:
            return Way.ARGUMENTS
        if plan is None:
            return Way.INTROSPECTION
        shapes: tuple[Shape, ...] = tuple(each.shape for each in bound)
        role = (caller or OPERATOR).role

        def compiled_on(build: str) -> Statement:
            return self._statements.of(
                (plan, shapes, build, role),
                lambda: compiled(plan, shapes, build=build, role=role, count_cap=self._count_cap),
            )

        return Compiled(plan, bound, compiled_on)

    def checked(self, compiled: Compiled, reading: Reading) -> Way:
        """Whether what was read is the answer, or why the plain way must find it."""
        if any(_BROKEN in text for text in reading.texts if text is not None):
            return Way.BROKEN
        cursors = [cursor for each in compiled.bound for cursor in each.cursors]
        return Way.COMPILED if _are_reached(cursors, reading.consistency) else Way.CURSOR

    def _bound(self, field: Asking, variables: VariableValues) -> Bound:
        if not field.ask.fixed:
            return self._binder.bind(field, variables)
        return self._bound_once(field)


class _Statements:
    """Statements by what they were made from, the least used forgotten.

    Bounded by what they take together: small documents can make large statements.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, Statement] = OrderedDict()
        self._chars = 0

    def of(self, key: Hashable, made: Callable[[], Statement]) -> Statement:
        """The statement that is known by that key, or a new one."""
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        statement = self._known[key] = made()
        self._chars += len(statement.text)
        while self._chars > _REMEMBERED_CHARS:
            _, forgotten = self._known.popitem(last=False)
            self._chars -= len(forgotten.text)
        return statement


def _deciding(operation: Operation, variables: VariableValues) -> tuple[tuple[str, Any], ...]:
    """The variables that decide @skip and @include, with their values."""
    coerced = variables.coerced
    return tuple((name, coerced[name]) for name in operation.deciding if name in coerced)


def _are_reached(cursors: Sequence[Cursor], consistency: Consistency) -> bool:
    try:
        require_cursors(cursors, consistency)
    except (BadUserInputError, StaleError):
        return False
    return True
