"""From the declarations of views to the GraphQL schema: object types, connections, root fields.

Stands apart so that a view's file stays a declaration. Only fields with arguments have resolvers
here; all others read the member of their source that has their name (`rows.member`).
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Optional, get_args

import strawberry
from strawberry.schema.config import StrawberryConfig
from strawberry.types import Info

from api.batches import Batches
from api.connection import ConnectionArguments, ConnectionField, Page, answer
from api.declare import DeclarationError, Equal, ListOf, Relation, ViewType
from api.errors import BadUserInputError
from api.inputs import Inputs, InputTypes, mapping_of
from api.kinds import kind_of
from api.names import camel
from api.objects import EventSource, Node, PageInfo, Position, position
from api.opaque import NotOursError, row_of
from api.page import PageArguments, PageSizes
from api.rows import Row, member
from api.scalars import SCALARS, storable

_BY_NAME: Final = inspect.Parameter.KEYWORD_ONLY
_PAGING = {
    "first": (int, "How many rows from the start, at most 100 unless configured otherwise."),
    "after": (str, "Only rows after this cursor."),
    "last": (int, "How many rows from the end."),
    "before": (str, "Only rows before this cursor."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the resolvers of one operation share."""

    batches: Batches
    sizes: PageSizes


@dataclass(frozen=True, slots=True)
class _ViewClasses:
    """The classes of one view, empty at first so that views can refer to each other."""

    node: Any
    edge: Any
    connection: Any
    inputs: Inputs


def build_schema(types: Sequence[ViewType]) -> strawberry.Schema:
    """The schema of these views. DeclarationError: a relation leads to a view that has no type."""
    by_view = {each.view.name: each for each in types}
    inputs = InputTypes()
    classes = {each.name: _empty(each, inputs) for each in types}
    for view_type in types:
        _complete_view(view_type, classes, by_view=by_view, inputs=inputs)
    return strawberry.Schema(
        query=_query(types, classes, inputs=inputs),
        subscription=_subscription(types, classes, inputs=inputs),
        types=[each.node for each in classes.values()],
        config=StrawberryConfig(default_resolver=member, scalar_map=SCALARS),
    )


def _empty(view_type: ViewType, inputs: InputTypes) -> _ViewClasses:
    name = view_type.name

    def is_type_of(source: Any, _: Any) -> bool:
        return isinstance(source, Row) and source.view_type is view_type

    return _ViewClasses(
        node=type(name, (Node,), {"is_type_of": staticmethod(is_type_of)}),
        edge=type(f"{name}Edge", (), {}),
        connection=type(f"{name}Connection", (), {}),
        inputs=inputs.of(view_type),
    )


def _complete_view(
    view_type: ViewType,
    classes: Mapping[str, _ViewClasses],
    *,
    by_view: Mapping[str, ViewType],
    inputs: InputTypes,
) -> None:
    ours = classes[view_type.name]
    _object(
        ours.node,
        view_type.doc,
        _members(view_type, inputs)
        | {
            relation.name: _relation(view_type, relation, classes=classes, by_view=by_view)
            for relation in view_type.relations
        },
    )
    _object(
        ours.edge,
        f"One {view_type.name} in a list, and its place there.",
        {
            "cursor": _plain(str, "The place, for `after` and `before`."),
            "node": _plain(ours.node, f"The {view_type.name}."),
        },
    )
    _object(
        ours.connection,
        f"A page of a list of {view_type.name} rows.",
        {
            "edges": _plain(_list(ours.edge), "The rows with their cursors."),
            "nodes": _plain(_list(ours.node), "The rows."),
            "page_info": _plain(PageInfo, "Which part of the list this is."),
            "total_count": _plain(
                int, "How many rows the whole list has, counted up to a cap (10000 by default)."
            ),
            "total_count_is_exact": _plain(bool, "False where `totalCount` stopped at its cap."),
        },
    )


def _members(view_type: ViewType, inputs: InputTypes) -> dict[str, Any]:
    members = {}
    for name, field in view_type.fields.items():
        annotation = (
            _list(_list_member(field.list_of)) if field.list_of else inputs.annotation(field)
        )
        members[name] = _plain(_nullable(annotation) if field.nullable else annotation, field.doc)
    if view_type.has_source:
        members["source"] = _plain(EventSource, "The event that made this row.")
    return members


def _list_member(list_of: ListOf) -> Any:
    parts = {
        part.name: _plain(
            _nullable(kind_of(part).annotation) if part.nullable else kind_of(part).annotation,
            part.doc or "",
        )
        for part in list_of.parts
    }
    return _object(type(list_of.name, (), {}), list_of.doc, parts)


def _relation(
    parent: ViewType,
    relation: Relation,
    *,
    classes: Mapping[str, _ViewClasses],
    by_view: Mapping[str, ViewType],
) -> Any:
    target = by_view.get(relation.target)
    if target is None:
        raise DeclarationError(f"{parent.name}.{relation.name}: no type for {relation.target!r}")
    theirs = classes[target.name]
    if relation.many:
        field = ConnectionField(target=target, parent=parent, relation=relation)
        return _connection(field, theirs, doc=relation.doc)
    columns = {join.target: join.column for join in relation.by if isinstance(join, Equal)}
    if set(columns) != set(target.key) or len(columns) != len(relation.by):
        raise DeclarationError(f"{parent.name}.{relation.name}: joins are not the target's key")

    async def resolve(root: Any, info: Info) -> Any:
        key = tuple(root.values[columns[name]] for name in target.key)
        return await _context(info).batches.row(target, key)

    return _resolved(resolve, _nullable(theirs.node), relation.doc)


def _connection(field: ConnectionField, classes: _ViewClasses, *, doc: str) -> Any:
    joins = field.relation.by if field.relation else ()

    async def resolve(
        root: Any,
        info: Info,
        first: Any = None,
        after: Any = None,
        last: Any = None,
        before: Any = None,
        where: Any = None,
        order_by: Any = None,
    ) -> Page:
        context = _context(info)
        arguments = ConnectionArguments(
            page=PageArguments(first=first, after=after, last=last, before=before),
            where=mapping_of(where),
            order_by=mapping_of(order_by),
        )
        parent = tuple(root.values[join.column] for join in joins)
        return await answer(
            field, arguments, parent=parent, batches=context.batches, sizes=context.sizes
        )

    where_type, order_type = classes.inputs.where, _list(classes.inputs.order_by)
    arguments = {name: _argument(_nullable(each), text) for name, (each, text) in _PAGING.items()}
    arguments["where"] = _argument(_nullable(where_type), "Which rows; all when left out.")
    arguments["order_by"] = _argument(
        _nullable(order_type), "In which order; by key when left out. The key breaks ties."
    )
    return _resolved(resolve, classes.connection, doc, arguments)


def _query(
    types: Sequence[ViewType], classes: Mapping[str, _ViewClasses], *, inputs: InputTypes
) -> type:
    members = {"node": _node_field(types), "nodes": _nodes_field(types)}
    for view_type in types:
        ours = classes[view_type.name]
        members[view_type.one] = _single(view_type, ours, inputs=inputs)
        field = ConnectionField(target=view_type)
        members[view_type.many] = _connection(field, ours, doc=f"{view_type.name} rows, in pages.")
    members["position"] = _resolved(
        _position, Position, "What this answer contains: which events, and how fresh it is."
    )
    doc = "Everything that can be read. One operation reads one consistent snapshot."
    query: type = _object(type("Query", (), {}), doc, members)
    return query


def _subscription(
    types: Sequence[ViewType], classes: Mapping[str, _ViewClasses], *, inputs: InputTypes
) -> type:
    """The fields of the query that may be followed; `live.py` runs them as queries.

    So their arguments must be among those of the query's field with the same name.
    """
    members = {}
    for view_type in types:
        ours = classes[view_type.name]
        keys = [view_type.fields[name] for name in view_type.key]
        members[view_type.one] = _followed(
            _nullable(ours.node),
            f"The {view_type.name} with this key, now and whenever it changes; null: none.",
            {each.column: _argument(inputs.annotation(each), each.doc) for each in keys},
        )
        members[view_type.many] = _followed(
            ours.connection,
            f"The first {view_type.name} rows, now and whenever they change.",
            {
                "first": _argument(_nullable(int), _PAGING["first"][1]),
                "where": _argument(_nullable(ours.inputs.where), "Which rows."),
                "order_by": _argument(_nullable(_list(ours.inputs.order_by)), "In which order."),
            },
        )
    doc = "Live queries: the current result at once, then each changed one with its position."
    subscription: type = _object(type("Subscription", (), {}), doc, members)
    return subscription


def _followed(annotation: Any, doc: str, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    async def resolve(**_: Any) -> AsyncGenerator[Any, None]:
        nothing: tuple[Any, ...] = ()
        for each in nothing:
            yield each

    asked = [_parameter(name, each) for name, each in arguments.items()]
    stream = AsyncGenerator[annotation, None]
    resolve.__annotations__ = {"return": stream, **{each.name: each.annotation for each in asked}}
    resolve.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        asked, return_annotation=stream
    )
    return stream, strawberry.subscription(resolver=resolve, description=doc)


def _single(view_type: ViewType, classes: _ViewClasses, *, inputs: InputTypes) -> Any:
    async def resolve(info: Info, **key: Any) -> Any:
        values = (_key_value(name, key[name]) for name in view_type.key)
        return await _context(info).batches.row(view_type, tuple(values))

    fields = [view_type.fields[name] for name in view_type.key]
    arguments = {each.column: _argument(inputs.annotation(each), each.doc) for each in fields}
    doc = f"The {view_type.name} with this key; null where there is none."
    return _resolved(resolve, _nullable(classes.node), doc, arguments)


def _node_field(types: Sequence[ViewType]) -> Any:
    by_name = {each.name: each for each in types}

    async def resolve(info: Info, id: Any) -> Any:  # noqa: A002 - GraphQL's name
        return await _node(info, id, by_name)

    arguments = {"id": _argument(strawberry.ID, "The object's `id`.")}
    doc = "The object with this id; null where there is none any more."
    return _resolved(resolve, _nullable(Node), doc, arguments)


def _nodes_field(types: Sequence[ViewType]) -> Any:
    by_name = {each.name: each for each in types}

    async def resolve(info: Info, ids: Any) -> Any:
        most = _context(info).sizes.most
        if len(ids) > most:
            raise BadUserInputError(f"nodes: at most {most} ids", limit=most)
        return [_node(info, each, by_name) for each in ids]

    arguments = {"ids": _argument(list[strawberry.ID], "Their ids, at most as many as a page has.")}
    doc = "The objects with these ids, in their order; null where there is none any more."
    return _resolved(resolve, _list(_nullable(Node)), doc, arguments)


def _node(info: Info, node_id: str, types: dict[str, ViewType]) -> Awaitable[Row | None]:
    try:
        view_type, key = row_of(node_id, types)
    except NotOursError as error:
        raise BadUserInputError("id: this is not an id of this service") from error
    return _context(info).batches.row(view_type, key)


def _position(info: Info) -> Position:
    return position(_context(info).batches.snapshot.consistency)


def _context(info: Info) -> Context:
    context: Context = info.context
    return context


def _key_value(name: str, value: Any) -> Any:
    try:
        return storable(value) if isinstance(value, str) else value
    except ValueError as error:
        raise BadUserInputError(f"{camel(name)}: {error}") from error


def _plain(annotation: Any, doc: str) -> tuple[Any, Any]:
    return annotation, strawberry.field(description=doc)


def _nullable(annotation: Any) -> Any:
    return Optional[annotation]  # noqa: UP045 - the class is not complete yet: no `|`


def _list(annotation: Any) -> Any:
    return list[annotation]


def _argument(annotation: Any, doc: str) -> Any:
    return Annotated[annotation, strawberry.argument(description=doc)]


def _resolved(
    resolve: Callable[..., Any],
    annotation: Any,
    doc: str,
    arguments: Mapping[str, Any] | None = None,
) -> tuple[Any, Any]:
    own = inspect.signature(resolve).parameters
    given = [own[name].replace(kind=_BY_NAME) for name in ("root", "info") if name in own]
    asked = [_parameter(name, each) for name, each in (arguments or {}).items()]
    signature = inspect.Signature([*given, *asked], return_annotation=annotation)
    resolve.__annotations__ = {
        "return": annotation,
        **{each.name: each.annotation for each in signature.parameters.values()},
    }
    resolve.__signature__ = signature  # type: ignore[attr-defined]
    return annotation, strawberry.field(resolver=resolve, description=doc)


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    optional = type(None) in get_args(get_args(annotation)[0])
    default = strawberry.UNSET if optional else inspect.Parameter.empty
    return inspect.Parameter(name, _BY_NAME, annotation=annotation, default=default)


def _object(cls: Any, doc: str, members: Mapping[str, tuple[Any, Any]]) -> Any:
    """Fill a class whose name others may refer to already, and make it an object type."""
    cls.__annotations__ = {}
    for name, (annotation, field) in members.items():
        if field.base_resolver is None:
            cls.__annotations__[name] = annotation
        setattr(cls, name, field)
    return strawberry.type(cls, name=cls.__name__, description=doc)
