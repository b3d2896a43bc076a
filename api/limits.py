"""What an operation may cost at most, judged from its text and variables before anything runs.

Stands apart from validation, which it precedes: some rules of validation compare every field with
every other, so a document must be known to be small before they see it. Fragments are walked once
each, however often and however deep they are spread, so judging is linear in the document.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    NamedTypeNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
)

from api.errors import TooComplexError
from api.names import camel
from api.page import PageSizes

COUNT_COST: Final = 10
"""What `totalCount` costs, in fields: it may count thousands of rows."""
_INTROSPECTION_MORE: Final = 10
_NODES_DEEP: Final = 120
_VALUE_DEPTH: Final = 30
_VALUES: Final = 2_000
_FRAGMENTS: Final = 50
_SAME_NAME_PAIRS: Final = 10_000
_REMEMBERED_SIZES: Final = 50
_TOLD: Final = 10**9
_WITH_FIELDS: Final = (GraphQLObjectType, GraphQLInterfaceType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is too much. A page counts as its rows times the fields of each."""

    document_bytes: int = 10_000
    tokens: int = 2_000
    body_bytes: int = 100_000
    depth: int = 10
    aliases: int = 30
    root_fields: int = 20
    directives: int = 50
    cost: int = 50_000
    result_bytes: int = 10_000_000

    def told(self) -> dict[str, int]:
        """As clients read them."""
        return {camel(name): value for name, value in asdict(self).items()}

    def require_result(self, size: int) -> None:
        """Return if an answer may have so many bytes; TooComplexError."""
        if size > self.result_bytes:
            raise self.refuse("The answer is larger than allowed. Ask for less.")

    def refuse(self, message: str, **measured: int) -> TooComplexError:
        """The error that says what was measured, and every limit."""
        return TooComplexError(message, **measured, limits=self.told())


@dataclass(slots=True)
class _Size:
    """What a selection amounts to when its fragments are put in place."""

    depth: int = 0
    aliases: int = 0
    directives: int = 0
    fields: int = 0

    def add(self, other: "_Size", *, below: bool) -> None:
        self.depth = max(self.depth, other.depth + below)
        self.aliases += other.aliases
        self.directives += other.directives
        self.fields += 0 if below else other.fields


@dataclass(frozen=True, slots=True)
class _Cost:
    """Fields to fill in: once, and once more for every row of the page around them."""

    once: int = 0
    per_row: int = 0

    def __add__(self, other: "_Cost") -> "_Cost":
        return _Cost(self.once + other.once, self.per_row + other.per_row)


def require_small(document: DocumentNode, limits: Limits) -> None:
    """Return if the document may be validated. TooComplexError: it is too large in some way."""
    fragments = _fragments(document)
    if len(fragments) > _FRAGMENTS:
        raise limits.refuse(f"The document has more than {_FRAGMENTS} fragments.")
    _require_flat(document, limits)
    sizes = _Sizes(fragments)
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            size = sizes.of(definition.selection_set)
            size.directives += _directives(definition)
            _require_size(size, limits)


def require_flat_variables(variables: Mapping[str, Any], limits: Limits) -> None:
    """Return if reading the variables takes neither a deep stack nor long."""
    level: list[Any] = [variables]
    values = 0
    for _ in range(_VALUE_DEPTH):
        level = [inner for value in level for inner in _inner(value)]
        if not level:
            return
        values += len(level)
        if values > _VALUES:
            raise limits.refuse(f"Variables hold more than {_VALUES} values.")
    raise limits.refuse(f"Variables are nested deeper than {_VALUE_DEPTH}.")


class Costing:
    """The cost of one operation by its variables; found once for each set of page sizes."""

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        definition: OperationDefinitionNode,
        *,
        sizes: PageSizes,
    ) -> None:
        self._schema = schema
        self._definition = definition
        self._sizes = sizes
        self._fragments = _fragments(document)
        self._sized_by = _variables_that_size(document)
        self._defaults = {
            each.variable.name.value: _literal_size(each.default_value)
            for each in definition.variable_definitions or ()
            if each.default_value is not None
        }
        self._found = lru_cache(_REMEMBERED_SIZES)(self._cost)

    def of(self, variables: Mapping[str, Any]) -> int:
        """The cost."""
        given = ((name, _size(variables[name])) for name in self._sized_by if name in variables)
        return self._found(tuple(given))

    def require(self, variables: Mapping[str, Any], limits: Limits) -> int:
        """The cost. TooComplexError: it is above the limit."""
        cost = self.of(variables)
        if cost > limits.cost:
            message = (
                "The operation may cost more than allowed: take smaller pages or fewer fields."
            )
            raise limits.refuse(message, cost=cost)
        return cost

    def _cost(self, given: tuple[tuple[str, int | None], ...]) -> int:
        costs = _Costs(
            self._schema,
            self._fragments,
            variables={**self._defaults, **dict(given)},
            sizes=self._sizes,
        )
        root = self._schema.get_root_type(self._definition.operation)
        return costs.of(self._definition.selection_set, root).once


class _Sizes:
    """Sizes of selections; a fragment is measured once, a cycle counts as nothing."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, _Size] = {}

    def of(self, selection_set: SelectionSetNode) -> _Size:
        size = _Size()
        for node in selection_set.selections:
            size.directives += _directives(node)
            match node:
                case FieldNode():
                    size.fields += 1
                    size.depth = max(size.depth, 1)
                    size.aliases += node.alias is not None
                    if node.selection_set is not None:
                        below = self.of(node.selection_set)
                        if node.name.value.startswith("__"):
                            # Asking about the schema goes deep by nature, and costs no rows.
                            below.depth = max(below.depth - _INTROSPECTION_MORE, 0)
                        size.add(below, below=True)
                case InlineFragmentNode():
                    size.add(self.of(node.selection_set), below=False)
                case FragmentSpreadNode():
                    size.add(self._fragment(node.name.value), below=False)
        return size

    def _fragment(self, name: str) -> _Size:
        if name not in self._known:
            # Validation will name a cycle or a missing fragment; here it only must not loop.
            self._known[name] = _Size()
            if name in self._fragments:
                self._known[name] = self.of(self._fragments[name].selection_set)
        return self._known[name]


class _Costs:
    """Costs of selections of a valid document."""

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: Mapping[str, FragmentDefinitionNode],
        *,
        variables: Mapping[str, int | None],
        sizes: PageSizes,
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._variables = variables
        self._sizes = sizes
        self._known: dict[str, _Cost] = {}

    def of(self, selection_set: SelectionSetNode | None, parent: GraphQLNamedType | None) -> _Cost:
        total = _Cost()
        for node in selection_set.selections if selection_set else ():
            match node:
                case FieldNode():
                    total += self._field(node, parent)
                case InlineFragmentNode(type_condition=None):
                    total += self.of(node.selection_set, parent)
                case InlineFragmentNode(type_condition=NamedTypeNode() as condition):
                    total += self.of(
                        node.selection_set, self._schema.type_map[condition.name.value]
                    )
                case FragmentSpreadNode():
                    total += self._fragment(node.name.value)
        return total

    def _fragment(self, name: str) -> _Cost:
        if name not in self._known:
            fragment = self._fragments[name]
            on_type = self._schema.type_map[fragment.type_condition.name.value]
            self._known[name] = self.of(fragment.selection_set, on_type)
        return self._known[name]

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None) -> _Cost:
        fields = parent.fields if isinstance(parent, _WITH_FIELDS) else {}
        field = fields.get(node.name.value)
        if field is None or node.name.value.startswith("__"):
            return _Cost(once=1)
        inner = self.of(node.selection_set, get_named_type(field.type))
        if "first" in field.args:
            rows = self._page(node)
            return _Cost(once=1 + inner.once + rows * inner.per_row)
        if "ids" in field.args:
            return _Cost(once=1 + self._given(node, "ids", default=1) * (1 + inner.once))
        if node.name.value == "totalCount":
            return _Cost(once=COUNT_COST)
        if node.name.value in ("edges", "nodes"):
            return _Cost(per_row=1 + inner.once)
        return _Cost(1 + inner.once, inner.per_row)

    def _page(self, node: FieldNode) -> int:
        """The most rows that the page can have; one that asks for too many is refused later."""
        asked = max(self._given(node, name, default=0) for name in ("first", "last"))
        return min(asked or self._sizes.default, self._sizes.most)

    def _given(self, node: FieldNode, name: str, *, default: int) -> int:
        for argument in node.arguments or ():
            if argument.name.value == name:
                value = argument.value
                if isinstance(value, VariableNode):
                    size = self._variables.get(value.name.value)
                else:
                    size = _literal_size(value)
                return default if size is None else size
        return default


def _fragments(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    return {
        each.name.value: each
        for each in document.definitions
        if isinstance(each, FragmentDefinitionNode)
    }


def _require_flat(document: DocumentNode, limits: Limits) -> None:
    """Nothing that makes validation slow: deep values, or one name again and again."""
    names: Counter[str] = Counter()
    level: list[Node] = [document]
    depth = 0
    while level:
        depth += 1
        if depth > _NODES_DEEP:
            raise limits.refuse("The document is nested too deeply.")
        names.update(
            (node.alias or node.name).value for node in level if isinstance(node, FieldNode)
        )
        level = [inner for node in level for inner in _below(node)]
    if sum(times * times for times in names.values()) > _SAME_NAME_PAIRS:
        raise limits.refuse("The document asks for the same fields too often: use fragments.")


def _require_size(size: _Size, limits: Limits) -> None:
    measured = (
        ("deep", "depth", size.depth, limits.depth),
        ("aliases", "aliases", size.aliases, limits.aliases),
        ("root fields", "rootFields", size.fields, limits.root_fields),
        ("directives", "directives", size.directives, limits.directives),
    )
    for what, name, found, most in measured:
        if found > most:
            raise limits.refuse(
                f"The operation is too complex: {what} {min(found, _TOLD)}, at most {most}.",
                **{name: min(found, _TOLD)},
            )


def _directives(node: Node) -> int:
    return len(getattr(node, "directives", None) or ())


def _below(node: Node) -> Iterator[Node]:
    for name in node.keys:
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, list | tuple):
            yield from (each for each in value if isinstance(each, Node))


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _variables_that_size(document: DocumentNode) -> tuple[str, ...]:
    """The variables that say how many rows a field has."""
    names: set[str] = set()
    level: list[Node] = [document]
    while level:
        names.update(
            argument.value.name.value
            for node in level
            if isinstance(node, FieldNode)
            for argument in node.arguments or ()
            if argument.name.value in ("first", "last", "ids")
            and isinstance(argument.value, VariableNode)
        )
        level = [inner for node in level for inner in _below(node)]
    return tuple(sorted(names))


def _size(value: Any) -> int | None:
    """How many rows a value of a variable asks for; None: it says nothing."""
    if isinstance(value, list):
        return len(value)
    return value if isinstance(value, int) else None


def _literal_size(value: ValueNode) -> int | None:
    if isinstance(value, IntValueNode):
        return int(value.value) if len(value.value) < 10 else _TOLD
    return len(value.values) if isinstance(value, ListValueNode) else None
