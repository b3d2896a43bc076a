"""GraphQL documents: parsed and validated once, remembered by their text.

Stands apart because everything in here happens before the database hears of a request.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from graphql import (
    DirectiveNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    NamedTypeNode,
    NameNode,
    Node,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    VariableNode,
    Visitor,
    parse,
    specified_rules,
    validate,
    visit,
)

from api.errors import BadRequestError, TooComplexError, with_code
from api.limits import Costing, Limits, require_flat_variables, require_small
from api.page import PageSizes

REMEMBERED: Final = 500
_MAX_ERRORS: Final = 20


class RefusedError(Exception):
    """The request cannot be run as it stands. `errors` are what the client is told."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = errors


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation of a valid document; the same object whenever it is asked for again."""

    document: DocumentNode
    definition: OperationDefinitionNode
    costing: Costing
    deciding: tuple[str, ...]
    """The variables that decide @skip and @include."""
    reads_views: bool
    """Whether it asks for more than the schema itself."""

    @property
    def name(self) -> str | None:
        """Its name, if it has one."""
        return self.definition.name.value if self.definition.name else None

    @property
    def is_query(self) -> bool:
        """Whether it only reads, once."""
        return self.definition.operation is OperationType.QUERY

    @property
    def fragments(self) -> dict[str, FragmentDefinitionNode]:
        """The named fragments of its document."""
        return _fragments(self.document)


class Documents:
    """Parses and validates, with a bounded memory."""

    def __init__(
        self,
        schema: GraphQLSchema,
        *,
        introspection: bool,
        limits: Limits,
        sizes: PageSizes,
    ) -> None:
        self._schema = schema
        self.limits = limits
        self._sizes = sizes
        hidden = () if introspection else (NoSchemaIntrospectionCustomRule,)
        self._rules = (*specified_rules, *hidden)
        self._parsed = lru_cache(REMEMBERED)(self._parse)
        self._valid = lru_cache(REMEMBERED)(self._validate)
        self._named = lru_cache(REMEMBERED)(self._operation)

    def operation(
        self,
        text: str,
        name: str | None,
        *,
        only_query: bool,
        variables: Mapping[str, Any] | None = None,
        live: bool = False,
        noted: Callable[[Operation, int], None] | None = None,
    ) -> Operation:
        """The operation that a request names. RefusedError: it cannot be run, with all reasons.

        A subscription comes as the query that it repeats, and only where it can be `live`.

        MethodError: `only_query`, and the operation is something else. TooComplexError: a limit.
        `noted` hears of a valid one and its cost before that is judged.
        """
        most = self.limits.document_bytes
        if len(text) > most or len(text.encode(errors="replace")) > most:
            raise self.limits.refuse(f"The document is larger than {most} bytes.")
        require_flat_variables(variables or {}, self.limits)
        definition = _select(self._parsed(text), name)
        if only_query and definition.operation is not OperationType.QUERY:
            raise MethodError
        if errors := self._valid(text):
            raise RefusedError([*errors])
        if definition.operation is OperationType.SUBSCRIPTION and not live:
            raise BadRequestError("A subscription needs a WebSocket, or Accept: text/event-stream.")
        operation = self._named(text, name)
        if noted is not None:
            noted(operation, operation.costing.of(variables or {}))
        operation.costing.require(variables or {}, self.limits)
        return operation

    def is_live(self, text: str, name: str | None) -> bool:
        """Whether that names a subscription; False for what cannot be run."""
        if len(text) > self.limits.document_bytes:
            return False
        try:
            definition = _select(self._parsed(text), name)
        except (RefusedError, TooComplexError):
            return False
        return definition.operation is OperationType.SUBSCRIPTION

    def _operation(self, text: str, name: str | None) -> Operation:
        document = self._parsed(text)
        if _select(document, name).operation is OperationType.SUBSCRIPTION:
            document = visit(document, _AsQuery(self._schema))
        definition = _select(document, name)
        costing = Costing(self._schema, document, definition, sizes=self._sizes)
        deciding = variables_in(*_directives(document))
        reads_views = _reads_views(definition.selection_set, _fragments(document))
        return Operation(document, definition, costing, deciding, reads_views)

    def _parse(self, text: str) -> DocumentNode:
        try:
            document = parse(text, max_tokens=self.limits.tokens)
        except GraphQLError as error:
            raise RefusedError([with_code(error, "GRAPHQL_PARSE_FAILED")]) from error
        except RecursionError as error:
            raise self.limits.refuse("The document is nested too deeply.") from error
        require_small(document, self.limits)
        return document

    def _validate(self, text: str) -> tuple[dict[str, Any], ...]:
        errors = validate(
            self._schema,
            self._parsed(text),
            self._rules,
            max_errors=_MAX_ERRORS,
            hide_suggestions=True,
        )
        return tuple(with_code(error, "GRAPHQL_VALIDATION_FAILED") for error in errors)


class _AsQuery(Visitor):
    """Makes queries of subscriptions: their root fields are fields of the query as well."""

    def __init__(self, schema: GraphQLSchema) -> None:
        super().__init__()
        self._names = {
            root.name: NameNode(value=query.name)
            for root, query in [(schema.subscription_type, schema.query_type)]
            if root is not None and query is not None
        }

    def enter_operation_definition(self, node: OperationDefinitionNode, *_: Any) -> Any:
        return OperationDefinitionNode(
            operation=OperationType.QUERY,
            name=node.name,
            variable_definitions=node.variable_definitions,
            directives=node.directives,
            selection_set=node.selection_set,
            loc=node.loc,
        )

    def enter_named_type(self, node: NamedTypeNode, *_: Any) -> Any:
        name = self._names.get(node.name.value)
        return None if name is None else NamedTypeNode(name=name)


def variables_in(*nodes: Node) -> tuple[str, ...]:
    """The names of the variables that are used anywhere in these."""
    found = (each.name.value for each in _below(nodes) if isinstance(each, VariableNode))
    return tuple(sorted(set(found)))


def _directives(document: DocumentNode) -> Iterator[Node]:
    return (each for each in _below([document]) if isinstance(each, DirectiveNode))


def _below(nodes: Iterable[Node]) -> Iterator[Node]:
    """The nodes themselves, and all in them."""
    for node in nodes:
        yield node
        for name in node.keys:
            value = getattr(node, name)
            inner = value if isinstance(value, list | tuple) else [value]
            yield from _below(each for each in inner if isinstance(each, Node))


class MethodError(Exception):
    """The HTTP method allows queries only. Send the operation by POST."""


def refusal(message: str, code: str) -> dict[str, Any]:
    """An error without a place in the document."""
    return {"message": message, "extensions": {"code": code}}


def _select(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    if name is not None:
        operations = [each for each in operations if each.name and each.name.value == name]
    if len(operations) == 1:
        return operations[0]
    told = "names no operation" if name is not None else "must be given: which operation to run"
    code = "OPERATION_RESOLUTION_FAILURE"
    if not operations and name is None:
        raise RefusedError([refusal("The document holds no operation.", code)])
    raise RefusedError([refusal(f"operationName {told}.", code)])


def _fragments(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    return {
        each.name.value: each
        for each in document.definitions
        if isinstance(each, FragmentDefinitionNode)
    }


def _reads_views(
    selections: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode]
) -> bool:
    for selection in selections.selections:
        match selection:
            case FieldNode():
                if not selection.name.value.startswith("__"):
                    return True
            case InlineFragmentNode():
                if _reads_views(selection.selection_set, fragments):
                    return True
            case FragmentSpreadNode():
                if _reads_views(fragments[selection.name.value].selection_set, fragments):
                    return True
    return False
