"""Operations made at random from the schema, and made smaller again when one of them fails.

Knows types and arguments from the schema alone, so a new view is asked for without an edit here.
Stands apart from the proof: it makes texts and variables and runs nothing.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    is_leaf_type,
)

Pools = Mapping[str, Sequence[Any]]
"""Name of a scalar, or of an input's field or argument -> values that are worth asking for."""


@dataclass
class Given:
    """A value of an argument: written into the document, or sent as a variable."""

    type: GraphQLInputType
    value: Any
    variable: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Given":
        return Given(self.type, copy.deepcopy(self.value, memo), self.variable)


@dataclass
class Asked:
    """A field of a selection."""

    name: str
    alias: str | None = None
    arguments: dict[str, Given] = field(default_factory=dict)
    directives: list[tuple[str, Given]] = field(default_factory=list)
    inner: list["Asked | Fragment"] | None = None


@dataclass
class Fragment:
    """An inline fragment, or one with a name and its spread."""

    on: str | None
    inner: list["Asked | Fragment"]
    name: str | None = None
    directives: list[tuple[str, Given]] = field(default_factory=list)


Selection = list[Asked | Fragment]
Path = tuple[str, ...]


@dataclass
class Operation:
    """A query. `variables` holds those that are sent; others have their defaults in `text`."""

    selection: Selection
    omitted: set[str] = field(default_factory=set)

    def text(self) -> str:
        """The document."""
        fragments: dict[str, str] = {}
        body = _selection(self.selection, fragments)
        given = {each.variable: each for each in values_of(self.selection) if each.variable}
        defined = ", ".join(
            f"${name}: {each.type}" + (f" = {_literal(each)}" if name in self.omitted else "")
            for name, each in sorted(given.items())
        )
        return " ".join([f"query Q{f'({defined})' if defined else ''} {body}", *fragments.values()])

    @property
    def variables(self) -> dict[str, Any]:
        """The variables as JSON."""
        return {
            each.variable: each.value
            for each in values_of(self.selection)
            if each.variable and each.variable not in self.omitted
        }


def values_of(selection: Selection) -> Iterator[Given]:
    """All values in a selection, at every depth."""
    for each in selection:
        yield from (given for _, given in each.directives)
        if isinstance(each, Asked):
            yield from each.arguments.values()
        yield from values_of(each.inner or [])


def _selection(selection: Selection, fragments: dict[str, str]) -> str:
    return "{ " + " ".join(_text(each, fragments) for each in selection) + " }"


def _text(each: Asked | Fragment, fragments: dict[str, str]) -> str:
    directives = "".join(f" @{name}(if: {_written(given)})" for name, given in each.directives)
    if isinstance(each, Asked):
        arguments = ", ".join(f"{n}: {_written(given)}" for n, given in each.arguments.items())
        name = f"{each.alias}: {each.name}" if each.alias else each.name
        inner = "" if each.inner is None else " " + _selection(each.inner, fragments)
        return f"{name}{f'({arguments})' if arguments else ''}{directives}{inner}"
    on = f" on {each.on}" if each.on else ""
    inner = _selection(each.inner, fragments)
    if each.name is None:
        return f"...{on}{directives} {inner}"
    fragments[each.name] = f"fragment {each.name}{on} {inner}"
    return f"...{each.name}{directives}"


def _written(given: Given) -> str:
    return f"${given.variable}" if given.variable else _literal(given)


def _literal(given: Given) -> str:
    return literal(given.type, given.value)


def literal(type_: Any, value: Any) -> str:
    """A value as it is written in a document."""
    if isinstance(type_, GraphQLNonNull):
        return literal(type_.of_type, value)
    if value is None:
        return "null"
    if isinstance(type_, GraphQLList):
        return f"[{', '.join(literal(type_.of_type, each) for each in value)}]"
    if isinstance(type_, GraphQLInputObjectType):
        members = (f"{n}: {literal(type_.fields[n].type, each)}" for n, each in value.items())
        return "{" + ", ".join(members) + "}"
    return str(value) if isinstance(type_, GraphQLEnumType) else json.dumps(value)


class Maker:
    """Makes operations; the same seed makes the same ones."""

    def __init__(self, schema: GraphQLSchema, pools: Pools, seed: int) -> None:
        self._schema = schema
        self._pools = pools
        self.chance = random.Random(seed)
        self._names = 0

    def operation(self) -> Operation:
        """A new operation."""
        query = self._schema.query_type
        assert query is not None
        self._left = self.chance.choice((6, 15, 30, 45))
        return Operation(self._selected(query, depth=0))

    def varied(self, operation: Operation) -> Operation:
        """The same document with other variables."""
        other = copy.deepcopy(operation)
        seen: dict[str, Any] = {}
        for given in values_of(other.selection):
            if given.variable and given.variable not in seen and given.variable[0] == "v":
                seen[given.variable] = self._again(given)
            if given.variable in seen:
                given.value = seen[given.variable]
        other.omitted -= {name for name in other.omitted if self.chance.random() < 0.5}
        return other

    def _again(self, given: Given) -> Any:
        if get_named_type(given.type).name == "Boolean":
            return self.chance.random() < 0.5
        name = given.variable.rstrip("0123456789")[2:] if given.variable else ""
        return self._value(given.type, name)

    def _selected(self, on: Any, *, depth: int) -> Selection:
        many = self.chance.randint(1, 3) if depth == 0 else self.chance.randint(1, 6)
        found: Selection = []
        for _ in range(many):
            if self._left <= 0 and found:
                break
            roll = self.chance.random()
            if roll < 0.12 and depth > 0:
                found.append(self._fragment(on, depth=depth))
            elif roll < 0.2 and found:
                found.append(self._repeated(self.chance.choice(found), on, depth=depth))
            else:
                found.append(self._field(on, depth=depth))
        return found

    def _fragment(self, on: Any, *, depth: int) -> Fragment:
        conditions: list[Any] = [on]
        if isinstance(on, GraphQLInterfaceType):
            conditions += self._schema.get_implementations(on).objects * 3
        elif isinstance(on, GraphQLObjectType):
            conditions += on.interfaces
        condition = self.chance.choice(conditions)
        bare = condition is on and self.chance.random() < 0.3
        name = None if bare or self.chance.random() < 0.5 else self._name("F")
        inner = self._selected(condition, depth=depth)
        return Fragment(None if bare else condition.name, inner, name, self._directives())

    def _repeated(self, each: Asked | Fragment, on: Any, *, depth: int) -> Asked | Fragment:
        """Something that is there already once more, with other fields inside."""
        again = copy.deepcopy(each)
        if isinstance(again, Asked) and again.inner is not None:
            named = get_named_type(on.fields[again.name].type)
            again.inner = self._selected(named, depth=depth + 1)
        if isinstance(again, Asked):
            again.directives = self._directives()
        return again

    def _field(self, on: Any, *, depth: int) -> Asked:
        self._left -= 1
        if self.chance.random() < 0.06:
            return Asked("__typename", directives=self._directives())
        name, definition = self._chosen(on, depth=depth)
        asked = Asked(name, directives=self._directives())
        asked.arguments = self._arguments(definition, depth=depth)
        # Whatever has arguments has a name of its own: what is merged has equal ones.
        if asked.arguments or self.chance.random() < 0.1:
            asked.alias = self._name(self.chance.choice(("a", "x_", "id", "nodes", "edges")))
        named = get_named_type(definition.type)
        if not is_leaf_type(named):
            asked.inner = self._selected(named, depth=depth + 1)
        return asked

    def _chosen(self, on: Any, *, depth: int) -> tuple[str, GraphQLField]:
        names = list(on.fields)
        if depth >= 8 or self._left <= 0:
            names = [n for n in names if is_leaf_type(get_named_type(on.fields[n].type))] or names
        elif "edges" in names:
            names += ["edges", "nodes", "pageInfo"]
        name = self.chance.choice(names)
        return name, on.fields[name]

    def _directives(self) -> list[tuple[str, Given]]:
        if self.chance.random() > 0.08:
            return []
        type_: Any = GraphQLNonNull(self._schema.type_map["Boolean"])
        value = self.chance.random() < 0.6
        variable = self._name("v_") if self.chance.random() < 0.7 else None
        return [(self.chance.choice(("include", "skip")), Given(type_, value, variable))]

    def _arguments(self, definition: GraphQLField, *, depth: int) -> dict[str, Given]:
        arguments = {}
        for name, argument in definition.args.items():
            needed = isinstance(argument.type, GraphQLNonNull)
            odds = {"first": 0.7, "where": 0.4, "orderBy": 0.4, "last": 0.12}.get(name, 0.02)
            if not needed and self.chance.random() > odds:
                continue
            value = self._value(argument.type, name)
            if name in ("first", "last") and depth > 2 and isinstance(value, int):
                value = min(value, 3)
            variable = self._name(f"v_{name}") if self.chance.random() < 0.6 else None
            arguments[name] = Given(argument.type, value, variable)
        if "first" in arguments and "last" in arguments and self.chance.random() < 0.9:
            del arguments["first"]
        return arguments

    def _value(self, type_: Any, name: str, *, depth: int = 0) -> Any:
        if isinstance(type_, GraphQLNonNull):
            return self._some(type_.of_type, name, depth=depth)
        return None if self.chance.random() < 0.03 else self._some(type_, name, depth=depth)

    def _some(self, type_: Any, name: str, *, depth: int) -> Any:
        if isinstance(type_, GraphQLList):
            many = self.chance.choice((0, 1, 1, 2, 2, 3))
            return [self._value(type_.of_type, name, depth=depth) for _ in range(many)]
        if isinstance(type_, GraphQLInputObjectType):
            return self._input(type_, depth=depth)
        if isinstance(type_, GraphQLEnumType):
            return self.chance.choice(list(type_.values))
        named: GraphQLNamedType = type_
        return self.chance.choice(self._pools.get(name) or self._pools[named.name])

    def _input(self, type_: GraphQLInputObjectType, *, depth: int) -> dict[str, Any]:
        names = list(type_.fields)
        if depth > 1:
            names = [name for name in names if name not in ("and", "or", "not")] or names
        needed = [n for n, f in type_.fields.items() if isinstance(f.type, GraphQLNonNull)]
        some = self.chance.sample(names, min(len(names), self.chance.choice((0, 1, 1, 1, 2, 3))))
        chosen = [name for name in names if name in some or name in needed]
        self.chance.shuffle(chosen)
        return {
            name: self._value(type_.fields[name].type, self._of(name, type_), depth=depth + 1)
            for name in chosen
        }

    def _of(self, name: str, type_: GraphQLInputObjectType) -> str:
        return "isNull" if name == "isNull" else type_.name

    def _name(self, start: str) -> str:
        self._names += 1
        return f"{start}{self._names}"


def places(operation: Operation) -> Iterator[tuple[Asked, Path]]:
    """The fields that are outside of fragments, with their paths in the answer."""

    def walk(selection: Selection, path: Path) -> Iterator[tuple[Asked, Path]]:
        for each in selection:
            if isinstance(each, Asked):
                here = (*path, each.alias or each.name)
                yield each, here
                yield from walk(each.inner or [], here)

    return walk(operation.selection, ())


def smallest(operation: Operation, fails: Callable[[Operation], bool]) -> Operation:
    """The operation without all that it fails without, too."""
    while True:
        for smaller in _smaller(operation):
            if fails(smaller):
                operation = smaller
                break
        else:
            return operation


def _smaller(operation: Operation) -> Iterator[Operation]:
    for number in range(sum(1 for _ in _cuts(operation.selection))):
        other = copy.deepcopy(operation)
        next(cut for at, cut in enumerate(_cuts(other.selection)) if at == number)()
        yield other


def _cuts(selection: Selection) -> Iterator[Callable[[], Any]]:
    """Every single thing that can be taken away, the large ones first."""
    if len(selection) > 1:
        yield from (partial(selection.pop, index) for index in range(len(selection)))
    for index, each in enumerate(selection):
        if each.directives:
            yield each.directives.pop
        if isinstance(each, Asked):
            yield from (partial(each.arguments.pop, name) for name in list(each.arguments))
        else:
            yield partial(selection.__setitem__, slice(index, index + 1), each.inner)
        yield from _cuts(each.inner or [])
