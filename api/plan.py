"""From an operation to the tree of what its answer holds.

Stands apart from SQL. Fields are collected by graphql-core itself (`collect_fields`), so fragments,
merged duplicates, aliases, @skip and @include mean what they mean to it. A tree depends on nothing
but the operation and the variables that decide @skip and @include; all other arguments stay as
they are written, each with a number (`Ask`), and are bound by `bind.py` when a request comes.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from graphql import (
    FragmentDefinitionNode,
    GraphQLField,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    get_named_type,
)
from graphql.execution.collect_fields import (
    FieldDetails,
    FragmentDetails,
    GroupedFieldSet,
    collect_fields,
    collect_subfields,
)
from graphql.execution.values import VariableValues

from api.connection import ConnectionField
from api.declare import Relation, ViewField, ViewType
from api.documents import Operation, variables_in
from api.names import camel
from api.rows import SOURCE_FIELDS
from api.tree import (
    Ask,
    Asking,
    ById,
    Cell,
    Edges,
    Fields,
    GlobalId,
    Items,
    Nodes,
    OneByKey,
    PageInfo,
    Place,
    Plan,
    Row,
    Source,
    Standing,
    Told,
    ToMany,
    ToOne,
    Total,
    TypeName,
)

_NODES: Final = ("node", "nodes")
_POSITION: Final = "position"
_TYPE_NAME: Final = "__typename"

A = TypeVar("A", bound=Asking)


class Planner:
    """Makes plans over one schema, from the declarations that the schema was made from."""

    def __init__(self, schema: GraphQLSchema, types: Sequence[ViewType]) -> None:
        self._schema = schema
        self._types = types

    def plan(self, operation: Operation, deciding: tuple[tuple[str, Any], ...]) -> Plan | None:
        """The plan; None: a field of the root is none of those that come from views.

        GraphQLError: a variable that decides a directive is null.
        """
        return _Planning(self._schema, self._types, operation, dict(deciding)).plan()


class _Planning:
    """One plan while it is made."""

    def __init__(
        self,
        schema: GraphQLSchema,
        types: Sequence[ViewType],
        operation: Operation,
        deciding: dict[str, Any],
    ) -> None:
        self._schema = schema
        self._operation = operation.definition
        self._variables = VariableValues({}, deciding)
        self._fragments = {
            each.name.value: FragmentDetails(each)
            for each in operation.document.definitions
            if isinstance(each, FragmentDefinitionNode)
        }
        self._by_name = {each.name: each for each in types}
        self._by_view = {each.view.name: each for each in types}
        self._one = {camel(each.one): each for each in types}
        self._many = {camel(each.many): each for each in types}
        self._roots = {*self._one, *self._many, *_NODES, _POSITION, _TYPE_NAME}
        self._asks = 0
        self._asking: dict[int, Asking] = {}
        self._lists: list[Items] = []
        self._numbers = 0

    def plan(self) -> Plan | None:
        query = self._schema.query_type
        assert query is not None
        collected = collect_fields(
            self._schema, self._fragments, self._variables, query, self._operation
        ).grouped_field_set
        if not {found[0].node.name.value for found in collected.values()} <= self._roots:
            return None
        fields = self._each(collected, query, self._root)
        asking = tuple(self._asking[number] for number in range(self._asks))
        return Plan(fields, asking, tuple(self._lists))

    def _root(self, name: str, definition: GraphQLField, found: list[FieldDetails]) -> Any:
        if name in self._one:
            ask = self._ask(definition, found)
            return self._noted(OneByKey(ask, self._row(self._one[name], found)))
        if name in self._many:
            connection = ConnectionField(target=self._many[name])
            return self._to_many(connection, definition, found)
        if name == _POSITION:
            return self._standing(definition, found)
        ask = self._ask(definition, found)
        rows = {each: self._row(view_type, found) for each, view_type in self._by_name.items()}
        return self._noted(ById(ask, rows, many=name == _NODES[1]))

    def _row(
        self, view_type: ViewType, found: list[FieldDetails], *, number: int | None = None
    ) -> Row:
        number = self._number() if number is None else number
        object_type = self._object(view_type.name)
        columns = {camel(column): shown for column, shown in view_type.fields.items()}
        relations = {camel(each.name): each for each in view_type.relations}

        def member(name: str, definition: GraphQLField, inner: list[FieldDetails]) -> Any:
            if name == "id":
                return GlobalId()
            if name == "source":
                return Source(self._named(definition, inner, SOURCE_FIELDS))
            if name in relations:
                return self._related(view_type, relations[name], definition, inner)
            return self._column(columns[name], definition, inner)

        return Row(
            number, view_type, self._each(self._sub(object_type, found), object_type, member)
        )

    def _column(
        self, shown: ViewField, definition: GraphQLField, found: list[FieldDetails]
    ) -> Cell | Items:
        if shown.list_of is None:
            return Cell(shown)
        parts = [part.name for part in shown.list_of.parts]
        items = Items(len(self._lists), shown, self._named(definition, found, parts))
        self._lists.append(items)
        return items

    def _related(
        self,
        parent: ViewType,
        relation: Relation,
        definition: GraphQLField,
        found: list[FieldDetails],
    ) -> ToOne | ToMany:
        target = self._by_view[relation.target]
        if not relation.many:
            return ToOne(relation, self._row(target, found))
        connection = ConnectionField(target=target, parent=parent, relation=relation)
        return self._to_many(connection, definition, found)

    def _to_many(
        self, connection: ConnectionField, definition: GraphQLField, found: list[FieldDetails]
    ) -> ToMany:
        number, ask = self._number(), self._ask(definition, found)
        object_type = self._named_type(definition)

        def member(name: str, definition: GraphQLField, inner: list[FieldDetails]) -> Any:
            match name:
                case "nodes":
                    return Nodes(self._row(connection.target, inner, number=number))
                case "edges":
                    return self._edges(connection.target, definition, inner, number=number)
                case "pageInfo":
                    return PageInfo(self._named(definition, inner))
                case _:
                    return Total(exactness=name == "totalCountIsExact")

        fields = self._each(self._sub(object_type, found), object_type, member)
        return self._noted(ToMany(number, ask, connection, fields))

    def _edges(
        self,
        target: ViewType,
        definition: GraphQLField,
        found: list[FieldDetails],
        *,
        number: int,
    ) -> Edges:
        object_type = self._named_type(definition)

        def member(name: str, _: GraphQLField, inner: list[FieldDetails]) -> Any:
            return Place() if name == "cursor" else self._row(target, inner, number=number)

        return Edges(self._each(self._sub(object_type, found), object_type, member))

    def _standing(self, definition: GraphQLField, found: list[FieldDetails]) -> Standing:
        object_type = self._named_type(definition)

        def member(name: str, inner: GraphQLField, details: list[FieldDetails]) -> Any:
            leaf = get_named_type(inner.type)
            if isinstance(leaf, GraphQLScalarType):
                return Told(name, leaf)
            return self._standing(inner, details)

        fields = self._each(self._sub(object_type, found), object_type, member)
        return Standing(found[0].node.name.value, fields)

    def _named(
        self,
        definition: GraphQLField,
        found: list[FieldDetails],
        names: Sequence[str] | None = None,
    ) -> Fields[Any]:
        """An object without rows below it: its fields by their own names, or by those given."""
        object_type = self._named_type(definition)
        spelled = None if names is None else {camel(name): name for name in names}

        def member(name: str, *_: Any) -> str:
            return name if spelled is None else spelled[name]

        return self._each(self._sub(object_type, found), object_type, member)

    def _each(
        self,
        collected: GroupedFieldSet,
        object_type: GraphQLObjectType,
        member: Callable[[str, GraphQLField, list[FieldDetails]], Any],
    ) -> Fields[Any]:
        return tuple(
            (key, TypeName(object_type.name))
            if found[0].node.name.value == _TYPE_NAME
            else (key, member(found[0].node.name.value, _field(object_type, found), found))
            for key, found in collected.items()
        )

    def _sub(self, object_type: GraphQLObjectType, found: list[FieldDetails]) -> GroupedFieldSet:
        return collect_subfields(
            self._schema, self._fragments, self._variables, self._operation, object_type, found
        ).grouped_field_set

    def _ask(self, definition: GraphQLField, found: list[FieldDetails]) -> Ask:
        node = found[0].node
        fixed = not variables_in(*(node.arguments or ()))
        self._asks += 1
        return Ask(self._asks - 1, definition, node, fixed)

    def _noted(self, asking: A) -> A:
        self._asking[asking.ask.number] = asking
        return asking

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _named_type(self, definition: GraphQLField) -> GraphQLObjectType:
        named = get_named_type(definition.type)
        assert isinstance(named, GraphQLObjectType)
        return named

    def _object(self, name: str) -> GraphQLObjectType:
        found = self._schema.type_map[name]
        assert isinstance(found, GraphQLObjectType)
        return found


def _field(object_type: GraphQLObjectType, found: list[FieldDetails]) -> GraphQLField:
    definition: GraphQLField = object_type.fields[found[0].node.name.value]
    return definition
