"""From the plan of an operation to ONE SQL statement that returns finished JSON.

Every object of the answer is a chain of texts, `'{"a":' || t1.a || ',"b":' || ... || '}'`: half the
cost of `json_build_object`, and byte for byte what the plain path prints. A chain is null as soon
as one of its values is, so a row that the schema's types cannot show (a null where none may be)
shows itself: it is written as BROKEN, and the operation goes the plain way, which can say it.

A row is one SELECT on its table, a connection one SELECT around its page and one around its count;
relations are subqueries on the columns of the row around them. The text depends on the plan, the
shapes of the arguments, the build and the caller's role; values are always bound. Nothing is
executed here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from api.bind import IdsShape, PageShape, PlaceShape, Shape, alias
from api.declare import Relation, ViewField, ViewType
from api.kinds import Kind, kind_of
from api.page import order_sql
from api.plan import (
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
    ToMany,
    ToOne,
    Total,
    TypeName,
)
from api.selects import joins, table, visible
from api.sql import column
from api.standing import FROM_LIVE, standing_sql

OPAQUE: Final = "\x01"
"""Stands on both sides of what is to become an opaque text. No JSON holds it as it is."""
BROKEN: Final = "\x02"
"""Stands for a row that the types of the schema cannot show."""

_VALUE: Final = re.compile(r"\$(\d+)")


class Expression(str):
    """SQL that gives a text. Any other string among the parts of a chain is the text itself."""

    __slots__ = ()


Parts = Sequence[str]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement's text, and which of the arguments' values it has places for, in their order."""

    text: str
    used: tuple[int, ...]


def compiled(
    plan: Plan, shapes: Sequence[Shape], *, build: str, role: str, count_cap: int
) -> Statement:
    """The statement: where the views stand, then a column per root field that reads views."""
    compiler = _Compiler(shapes, build=build, count_cap=count_cap)
    columns = [compiler.root(field) for _, field in plan.fields if reads_views(field)]
    # PostgreSQL plans anew what it planned for another role: each role has statements of its own.
    text = f"SELECT /* {role} */ " + ", ".join([standing_sql(build), *columns]) + FROM_LIVE
    # A value that nothing shown depends on (a cursor beside a count alone) has no place in it.
    used = sorted({int(number) for number in _VALUE.findall(text)})
    places = {number: place for place, number in enumerate(used, start=1)}
    text = _VALUE.sub(lambda found: f"${places[int(found[1])]}", text)
    return Statement(text, tuple(used))


def reads_views(field: Any) -> bool:
    """Whether a root field has a column of its own in the statement."""
    return isinstance(field, OneByKey | ById | ToMany)


class _Compiler:
    """The rows and connections of one statement."""

    def __init__(self, shapes: Sequence[Shape], *, build: str, count_cap: int) -> None:
        self.shapes = shapes
        self.build = build
        self.count_cap = count_cap
        self._first = [*accumulate((shape.width for shape in shapes), initial=0)]

    def values(self, number: int) -> Iterator[str]:
        """The values of the field with that number, by their numbers among all."""
        first = self._first[number]
        return (f"${index}" for index in range(first, first + self.shapes[number].width))

    def root(self, field: Any) -> str:
        """A root field."""
        match field:
            case OneByKey(ask, row):
                return self._one(row, _key_is(row, self.values(ask.number)))
            case ById(ask, rows, many=False):
                (named,) = _ids_shape(self.shapes[ask.number]).types
                return self._one(rows[named], _key_is(rows[named], self.values(ask.number)))
            case ById():
                return self._by_ids(field)
            case ToMany():
                return self.connection(field, around=None)
        raise AssertionError(field)

    def _by_ids(self, field: ById) -> str:
        values = self.values(field.ask.number)
        types = _ids_shape(self.shapes[field.ask.number]).types
        if not types:
            return "'[]'"
        each = " UNION ALL ".join(self._ids_of(field.rows[named], values) for named in types)
        return (
            "(SELECT '[' || string_agg(coalesce(x.row, 'null'), ',' ORDER BY x.place) || ']'"
            f" FROM ({each}) AS x)"
        )

    def _ids_of(self, row: Row, values: Iterator[str]) -> str:
        key = row.view_type.key
        kinds = [row.view_type.fields[each].kind for each in key]
        lists = [f"{next(values)}::{sql}[]" for sql in [*(kind.sql for kind in kinds), "int"]]
        names = [f"k{index}" for index in range(len(key))]
        keys = _key_is(row, (f"k.{each}" for each in names))
        return (
            f"SELECT {self._one(row, keys)} AS row, k.place"
            f" FROM unnest({', '.join(lists)}) AS k({', '.join([*names, 'place'])})"
        )

    def _one(self, row: Row, conditions: Iterable[str]) -> str:
        """The object of the row there is; null where there is none."""
        where = [*conditions, *visible(row.view_type, alias(row.number))]
        return (
            f"(SELECT {self.row(row)} FROM {self.table(row.view_type, row.number)}{_where(where)})"
        )

    def table(self, view_type: ViewType, number: int) -> str:
        """A view's table in the build, with its alias."""
        return f"{table(self.build, view_type)} AS {alias(number)}"

    def row(self, row: Row) -> str:
        """The object of the row at hand."""
        made = _object((key, self._member(row, member)) for key, member in row.fields)
        return f"coalesce({_chain(made)}, {_literal(BROKEN)})"

    def _member(self, row: Row, member: Any) -> Parts:
        at = alias(row.number)
        match member:
            case TypeName(named):
                return [f'"{named}"']
            case Cell(shown):
                return _cell(shown, column(at, shown.column))
            case GlobalId():
                key = [f'["{row.view_type.name}", ', *_texts(row.view_type, row.view_type.key, at)]
                return ['"', OPAQUE, *key, "]", OPAQUE, '"']
            case Source(fields):
                return _object((key, _source(row, each)) for key, each in fields)
            case Items(shown, fields):
                return _items(shown, fields, column(at, shown.column))
            case ToOne(relation, target):
                found = self._one(target, _joins(relation, target.number, row.number))
                return [Expression(f"coalesce({found}, 'null')")]
            case ToMany():
                return [Expression(self.connection(member, around=row.number))]
        raise AssertionError(member)

    def connection(self, field: ToMany, *, around: int | None) -> str:
        """The object of a connection, of the query or of the row around it."""
        return _Connection(self, field, around).sql()


class _Connection:
    """One connection while it is put together: what its page and its count must give."""

    def __init__(self, compiler: _Compiler, field: ToMany, around: int | None) -> None:
        shape = compiler.shapes[field.ask.number]
        assert isinstance(shape, PageShape)
        self._compiler = compiler
        self._field = field
        self._shape = shape
        self._target = field.connection.target
        self._at = alias(field.number)
        values = compiler.values(field.ask.number)
        where = _numbered(shape.where, values)
        self._after = _placed(shape.after, values)
        self._before = _placed(shape.before, values)
        relation = field.connection.relation
        self._fixed = [
            *(_joins(relation, field.number, around) if relation and around is not None else ()),
            *visible(self._target, self._at),
            where,
        ]
        self._rows: list[str] = []
        self._shows_ends = False
        self._looks_further = False
        self._counts = False

    def sql(self) -> str:
        """The SELECT that gives the object."""
        shown = _chain(_object((key, self._part(part)) for key, part in self._field.fields))
        pages = self._rows or self._shows_ends or self._looks_further
        sources = [f"({self._page_sql()}) AS p"] if pages else []
        sources += [f"({self._count_sql()}) AS c"] if self._counts else []
        return f"(SELECT {shown}{' FROM ' if sources else ''}{', '.join(sources)})"

    def _part(self, part: Any) -> Parts:
        match part:
            case TypeName(named):
                return [f'"{named}"']
            case Nodes(row):
                return self._list([Expression(self._compiler.row(row))])
            case Edges(fields):
                return self._list(_object((key, self._edge(each)) for key, each in fields))
            case PageInfo(fields):
                return _object((key, self._info(each)) for key, each in fields)
            case Total(exactness):
                self._counts = True
                cap = self._compiler.count_cap
                return [
                    Expression(f"(c.found <= {cap})" if exactness else f"least(c.found, {cap})")
                ]
        raise AssertionError(part)

    def _list(self, each: Parts) -> Parts:
        """A list with one of these per row of the page."""
        self._rows.append(_chain(each))
        return ["[", Expression(f"coalesce(p.rows{len(self._rows)}, '')"), "]"]

    def _edge(self, member: Any) -> Parts:
        match member:
            case TypeName(named):
                return [f'"{named}"']
            case Place():
                return ['"', *self._cursor(), '"']
            case Row():
                return [Expression(self._compiler.row(member))]
        raise AssertionError(member)

    def _cursor(self) -> Parts:
        """The texts that order the row at hand, and whose cursor it is."""
        names = [term.column for term in self._shape.order]
        texts = _texts(self._target, names, self._at)
        return [OPAQUE, f"{self._field.ask.number}[", *texts, "]", OPAQUE]

    def _info(self, member: TypeName | str) -> Parts:
        backward = self._shape.backward
        match member:
            case TypeName(named):
                return [f'"{named}"']
            case "startCursor":
                return self._end(nearest=not backward)
            case "endCursor":
                return self._end(nearest=backward)
            case "hasNextPage":
                return self._more(beyond_page=not backward, left_out=self._before, back=False)
            case _:
                return self._more(beyond_page=backward, left_out=self._after, back=True)

    def _end(self, *, nearest: bool) -> Parts:
        """The cursor of the page's first row or of its last, as they were found."""
        if self._shape.size == 0:
            return ["null"]
        self._shows_ends = True
        which = "1" if nearest else f"least(p.found, {self._shape.size})"
        return [Expression(f"coalesce('\"' || p.places[{which}] || '\"', 'null')")]

    def _more(self, *, beyond_page: bool, left_out: PlaceShape | None, back: bool) -> Parts:
        """Whether there are rows past the page's far end, or on the other side of a cursor."""
        ways = []
        if beyond_page:
            self._looks_further = True
            ways.append(f"p.found > {self._shape.size}")
        if left_out:
            # In the order, or PostgreSQL hopes to meet one soon, and reads a large table whole.
            order = order_sql(self._shape.order, self._at, backward=back).text
            nearest = f"SELECT 1{self._from([left_out.upto])} ORDER BY {order} LIMIT 1"
            ways.append(f"(SELECT count(*) > 0 FROM ({nearest}) AS x)")
        return [Expression(f"({' OR '.join(ways)})")] if ways else ["false"]

    def _page_sql(self) -> str:
        """What is asked of the page: its rows are found, numbered, written, and put together."""
        shape, at = self._shape, self._at
        beyond = [each.beyond for each in (self._after, self._before) if each]
        order = order_sql(shape.order, at, backward=shape.backward).text
        limit = shape.size + self._looks_further
        found = f"SELECT {at}.*{self._from(beyond)} ORDER BY {order} LIMIT {limit}"
        written = [f"{row} AS row{number}" for number, row in enumerate(self._rows, start=1)]
        if self._shows_ends:
            written.append(f"{_chain(self._cursor())} AS cursor")
        written.append("row_number() OVER () AS place")
        return (
            f"SELECT {', '.join(self._aggregates())}"
            f" FROM (SELECT {', '.join(written)} FROM ({found}) AS {at}) AS r"
        )

    def _aggregates(self) -> Iterator[str]:
        yield "count(*) AS found"
        if self._shows_ends:
            yield "array_agg(r.cursor ORDER BY r.place) AS places"
        turn = " DESC" if self._shape.backward else ""
        kept = f" FILTER (WHERE r.place <= {self._shape.size})" if self._looks_further else ""
        for number in range(1, len(self._rows) + 1):
            yield f"string_agg(r.row{number}, ',' ORDER BY r.place{turn}){kept} AS rows{number}"

    def _count_sql(self) -> str:
        rows = f"SELECT 1{self._from([])} LIMIT {self._compiler.count_cap + 1}"
        return f"SELECT count(*) AS found FROM ({rows}) AS x"

    def _from(self, more: Iterable[str]) -> str:
        where = _where([*self._fixed, *more])
        return f" FROM {self._compiler.table(self._target, self._field.number)}{where}"


def _ids_shape(shape: Shape) -> IdsShape:
    assert isinstance(shape, IdsShape)
    return shape


def _key_is(row: Row, values: Iterable[str]) -> list[str]:
    fields = row.view_type.fields
    return [
        f"{column(alias(row.number), each)} = {value}::{fields[each].kind.sql}"
        for each, value in zip(row.view_type.key, values, strict=False)
    ]


def _joins(relation: Relation, target: int, parent: int) -> Iterator[str]:
    theirs = [column(alias(parent), join.column) for join in relation.by]
    return joins(relation, alias(target), theirs)


def _where(conditions: Iterable[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}"


def _placed(place: PlaceShape | None, values: Iterator[str]) -> PlaceShape | None:
    if place is None:
        return None
    known = [next(values) for _ in range(place.beyond.count("%s"))]
    return PlaceShape(*(_numbered(side, iter(known)) for side in place))


def _numbered(condition: str, values: Iterator[str]) -> str:
    """A condition with the places of its values."""
    first, *rest = condition.split("%s")
    pieces = [first, *(f"{next(values)}{piece}" for piece in rest)]
    return "".join(pieces).replace("%%", "%")


def _object(fields: Iterable[tuple[str, Parts]]) -> Parts:
    """A JSON object. Names are GraphQL's: nothing in them needs an escape."""
    parts = ["{"]
    for index, (key, value) in enumerate(fields):
        parts += [f'{"," if index else ""}"{key}":', *value]
    return [*parts, "}"]


def _cell(shown: ViewField, at: str) -> Parts:
    parts = _symbol(shown, at) if shown.enumeration else _value(shown.kind, at)
    return _or_null(parts) if shown.nullable else parts


def _symbol(shown: ViewField, at: str) -> Parts:
    """A symbol of an enum; null for a text that is none of them."""
    assert shown.enumeration is not None
    symbols = shown.enumeration.symbols
    cases = " ".join(f"WHEN '{symbol}' THEN '\"{symbol}\"'" for symbol in symbols)
    return [Expression(f"CASE {at} {cases} END")]


def _value(kind: Kind, at: str) -> Parts:
    """A value as JSON; null where it is null."""
    made = Expression(kind.sql_text.format(at))
    match kind.shown:
        case "string":
            return [Expression(f"to_json({made})")]
        case "quoted":
            return ['"', made, '"']
        case "bare":
            return [made]


def _or_null(parts: Parts) -> Parts:
    return [Expression(f"coalesce({_chain(parts)}, 'null')")]


def _texts(view_type: ViewType, names: Iterable[str], at: str) -> Parts:
    """Values as JSON strings, as `opaque.packed` separates them."""
    parts: list[str] = []
    for index, each in enumerate(names):
        kind = view_type.fields[each].kind
        value = _value(kind, column(at, each))
        text = ['"', *value, '"'] if kind.shown == "bare" else value
        parts += [", ", *text] if index else text
    return parts


def _source(row: Row, member: TypeName | str) -> Parts:
    if isinstance(member, TypeName):
        return [f'"{member.name}"']
    found = row.view_type.view.table.columns[f"source_{member}"]
    return _value(kind_of(found), column(alias(row.number), found.name))


def _items(shown: ViewField, fields: Fields[TypeName | str], at: str) -> Parts:
    """The objects of a JSON list, with the fields that are asked for."""
    assert shown.list_of is not None
    parts = {part.name: part for part in shown.list_of.parts}

    def member(each: TypeName | str) -> Parts:
        if isinstance(each, TypeName):
            return [f'"{each.name}"']
        value = _value(kind_of(parts[each]), column("i", each))
        return _or_null(value) if parts[each].nullable else value

    item = _chain(_object((key, member(each)) for key, each in fields))
    record = ", ".join(f"{column('i', n)[2:]} {kind_of(p).sql}" for n, p in parts.items())
    made = (
        f"CASE json_typeof({at}) WHEN 'array' THEN (SELECT '[' || coalesce(string_agg("
        f"coalesce({item}, {_literal(BROKEN)}), ','), '') || ']'"
        f" FROM json_to_recordset({at}) AS i({record})) END"
    )
    return _or_null([Expression(made)]) if shown.nullable else [Expression(made)]


def _chain(parts: Parts) -> str:
    """The parts as one SQL expression: texts that meet become one."""
    pieces: list[str] = []
    literal = ""
    for part in parts:
        if isinstance(part, Expression):
            pieces += [_literal(literal), part] if literal else [part]
            literal = ""
        else:
            literal += part
    return " || ".join([*pieces, _literal(literal)] if literal else pieces)


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    if OPAQUE in text or BROKEN in text:
        escaped = quoted.replace("\\", "\\\\").replace(OPAQUE, "\\x01").replace(BROKEN, "\\x02")
        return f"E'{escaped}'"
    return f"'{quoted}'"
