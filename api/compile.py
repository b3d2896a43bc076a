"""From the plan of an operation to ONE SQL statement that returns finished JSON.

A row is one SELECT on its table, a connection one SELECT around its page and one around its count;
relations are subqueries on the columns of the row around them. What stands in each is a chain of
texts (`chain.py`). The text depends on the plan, the shapes of the arguments, the build and the
caller's role; values are always bound. Nothing is executed here.

From the outside in: the statement, its root fields, rows, and then connections.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from api.bind import IdsShape, PageShape, PlaceShape, Shape
from api.chain import (
    MARK,
    Expression,
    Parts,
    as_it_is,
    cell,
    chain,
    object_of,
    or_null,
    string,
    texts_of,
    value_of,
    whole,
)
from api.declare import Relation, ViewType
from api.kinds import kind_of
from api.page import order_sql
from api.selects import joins, table, visible
from api.sql import column
from api.standing import FROM_LIVE, standing_sql
from api.tree import (
    ById,
    Cell,
    Edges,
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
    alias,
)

_VALUE: Final = re.compile(r"\$(\d+)")


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
    return _numbered_anew(text)


def reads_views(field: Any) -> bool:
    """Whether a root field has a column of its own in the statement."""
    return isinstance(field, OneByKey | ById | ToMany)


def _numbered_anew(text: str) -> Statement:
    """Without gaps: what nothing shown depends on (a cursor beside a count) has no place.

    PostgreSQL could not tell the type of such a value.
    """
    used = sorted({int(number) for number in _VALUE.findall(text)})
    places = {number: place for place, number in enumerate(used, start=1)}
    renumbered = _VALUE.sub(lambda found: f"${places[int(found[1])]}", text)
    return Statement(renumbered, tuple(used))


class _Compiler:
    """The root fields and the rows of one statement."""

    def __init__(self, shapes: Sequence[Shape], *, build: str, count_cap: int) -> None:
        self.shapes = shapes
        self.count_cap = count_cap
        self._build = build
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
                row = rows[self._types(ask.number)[0]]
                return self._one(row, _key_is(row, self.values(ask.number)))
            case ById():
                return self._by_ids(field)
            case ToMany():
                return self.connection(field, around=None)
        raise AssertionError(field)

    def _types(self, number: int) -> tuple[str, ...]:
        shape = self.shapes[number]
        assert isinstance(shape, IdsShape)
        return shape.types

    def _by_ids(self, field: ById) -> str:
        """A list in the order of the ids, whatever types they name."""
        values = self.values(field.ask.number)
        types = self._types(field.ask.number)
        if not types:
            return "'[]'"
        each = " UNION ALL ".join(self._ids_of(field.rows[named], values) for named in types)
        return (
            f"(SELECT '[' || string_agg({or_null('x.row')}, ',' ORDER BY x.place) || ']'"
            f" FROM ({each}) AS x)"
        )

    def _ids_of(self, row: Row, values: Iterator[str]) -> str:
        key = row.view_type.key
        types = [*(row.view_type.fields[each].kind.sql for each in key), "int"]
        lists = ", ".join(f"{next(values)}::{sql_type}[]" for sql_type in types)
        names = [f"k{index}" for index in range(len(key))]
        found = self._one(row, _key_is(row, (f"k.{each}" for each in names)))
        return (
            f"SELECT {found} AS row, k.place"
            f" FROM unnest({lists}) AS k({', '.join([*names, 'place'])})"
        )

    def _one(self, row: Row, conditions: Iterable[str]) -> str:
        """The object of the row there is; null where there is none."""
        where = [*conditions, *visible(row.view_type, alias(row.number))]
        return f"(SELECT {self.row(row)}{self.of(row.view_type, row.number, where)})"

    def of(self, view_type: ViewType, number: int, conditions: Iterable[str]) -> str:
        """FROM a view's table in the build, by its alias, WHERE all conditions hold."""
        place = f"{table(self._build, view_type)} AS {alias(number)}"
        return f" FROM {place} WHERE {' AND '.join(conditions)}"

    def row(self, row: Row) -> Expression:
        """The object of the row at hand."""
        return whole(object_of((key, self._member(row, member)) for key, member in row.fields))

    def _member(self, row: Row, member: Any) -> Parts:
        at = alias(row.number)
        match member:
            case TypeName(named):
                return string(named)
            case Cell(shown):
                return cell(shown, column(at, shown.column))
            case GlobalId():
                key = texts_of(_kinds(row.view_type, row.view_type.key, at))
                return ['"', MARK, f'["{row.view_type.name}", ', *key, "]", MARK, '"']
            case Source(fields):
                return object_of((key, _source(row, each)) for key, each in fields)
            case Items(number, shown):
                return as_it_is(shown, number, column(at, shown.column))
            case ToOne(relation, target):
                found = self._one(target, _joins(relation, target.number, row.number))
                return [or_null(found)]
            case ToMany():
                return [Expression(self.connection(member, around=row.number))]
        raise AssertionError(member)

    def connection(self, field: ToMany, *, around: int | None) -> str:
        """The object of a connection, of the query or of the row around it."""
        return _Connection(self, field, around).sql()


class _Connection:
    """One connection while it is put together: what is asked of its page, and of its count.

    Its SELECT reads from at most two rows: `p`, what the page gives, and `c`, the count.
    """

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
        shown = chain(object_of((key, self._part(part)) for key, part in self._field.fields))
        pages = self._rows or self._shows_ends or self._looks_further
        sources = [f"({self._page()}) AS p"] if pages else []
        sources += [f"({self._count()}) AS c"] if self._counts else []
        return f"(SELECT {shown}{' FROM ' if sources else ''}{', '.join(sources)})"

    def _part(self, part: Any) -> Parts:
        match part:
            case TypeName(named):
                return string(named)
            case Nodes(row):
                return self._list([self._compiler.row(row)])
            case Edges(fields):
                return self._list(object_of((key, self._edge(each)) for key, each in fields))
            case PageInfo(fields):
                return object_of((key, self._info(each)) for key, each in fields)
            case Total(exactness):
                self._counts = True
                cap = self._compiler.count_cap
                shown = f"(c.found <= {cap})" if exactness else f"least(c.found, {cap})"
                return [Expression(f"{shown}::text")]
        raise AssertionError(part)

    def _list(self, each: Parts) -> Parts:
        """A list with one of these per row of the page."""
        self._rows.append(chain(each))
        return ["[", Expression(f"coalesce(p.rows{len(self._rows)}, '')"), "]"]

    def _edge(self, member: Any) -> Parts:
        match member:
            case TypeName(named):
                return string(named)
            case Place():
                return ['"', *self._cursor(), '"']
            case Row():
                return [self._compiler.row(member)]
        raise AssertionError(member)

    def _cursor(self) -> Parts:
        """The texts that order the row at hand, and the number of the field they belong to."""
        names = [term.column for term in self._shape.order]
        texts = texts_of(_kinds(self._target, names, self._at))
        return [MARK, f"{self._field.ask.number}[", *texts, "]", MARK]

    def _info(self, member: TypeName | str) -> Parts:
        backward = self._shape.backward
        match member:
            case TypeName(named):
                return string(named)
            case "startCursor":
                return self._end(nearest=not backward)
            case "endCursor":
                return self._end(nearest=backward)
            case "hasNextPage":
                return self._more(further=not backward, left_out=self._before, back=False)
            case _:
                return self._more(further=backward, left_out=self._after, back=True)

    def _end(self, *, nearest: bool) -> Parts:
        """The cursor of the page's first row or of its last, as they were found."""
        if self._shape.size == 0:
            return ["null"]
        self._shows_ends = True
        which = "1" if nearest else f"least(p.found, {self._shape.size})"
        return [or_null(f"'\"' || p.places[{which}] || '\"'")]

    def _more(self, *, further: bool, left_out: PlaceShape | None, back: bool) -> Parts:
        """Whether there are rows further than the page, or on the other side of a cursor."""
        ways = []
        if further:
            self._looks_further = True
            ways.append(f"p.found > {self._shape.size}")
        if left_out:
            # In the order, or PostgreSQL hopes to meet one soon, and reads a large table whole.
            order = order_sql(self._shape.order, self._at, backward=back).text
            nearest = f"SELECT 1{self._from([left_out.upto])} ORDER BY {order} LIMIT 1"
            ways.append(f"(SELECT count(*) > 0 FROM ({nearest}) AS x)")
        return [Expression(f"({' OR '.join(ways)})::text")] if ways else ["false"]

    def _page(self) -> str:
        """Rows are found, then numbered and written, then put together."""
        shape, at = self._shape, self._at
        beyond = [each.beyond for each in (self._after, self._before) if each]
        order = order_sql(shape.order, at, backward=shape.backward).text
        limit = shape.size + self._looks_further
        found = f"SELECT {at}.*{self._from(beyond)} ORDER BY {order} LIMIT {limit}"
        written = [f"{row} AS row{number}" for number, row in enumerate(self._rows, start=1)]
        if self._shows_ends:
            written.append(f"{chain(self._cursor())} AS cursor")
        written.append("row_number() OVER () AS place")
        return (
            f"SELECT {', '.join(self._gathered())}"
            f" FROM (SELECT {', '.join(written)} FROM ({found}) AS {at}) AS r"
        )

    def _gathered(self) -> Iterator[str]:
        yield "count(*) AS found"
        if self._shows_ends:
            yield "array_agg(r.cursor ORDER BY r.place) AS places"
        turn = " DESC" if self._shape.backward else ""
        kept = f" FILTER (WHERE r.place <= {self._shape.size})" if self._looks_further else ""
        for number in range(1, len(self._rows) + 1):
            yield f"string_agg(r.row{number}, ',' ORDER BY r.place{turn}){kept} AS rows{number}"

    def _count(self) -> str:
        rows = f"SELECT 1{self._from([])} LIMIT {self._compiler.count_cap + 1}"
        return f"SELECT count(*) AS found FROM ({rows}) AS x"

    def _from(self, more: Iterable[str]) -> str:
        return self._compiler.of(self._target, self._field.number, [*self._fixed, *more])


def _key_is(row: Row, values: Iterable[str]) -> list[str]:
    fields = row.view_type.fields
    return [
        f"{column(alias(row.number), each)} = {value}::{fields[each].kind.sql}"
        for each, value in zip(row.view_type.key, values, strict=True)
    ]


def _joins(relation: Relation, target: int, parent: int) -> Iterator[str]:
    theirs = [column(alias(parent), join.column) for join in relation.by]
    return joins(relation, alias(target), theirs)


def _kinds(view_type: ViewType, names: Iterable[str], at: str) -> dict[str, Any]:
    return {column(at, each): view_type.fields[each].kind for each in names}


def _source(row: Row, member: TypeName | str) -> Parts:
    if isinstance(member, TypeName):
        return string(member.name)
    found = row.view_type.view.table.columns[f"source_{member}"]
    return value_of(kind_of(found), column(alias(row.number), found.name))


def _placed(place: PlaceShape | None, values: Iterator[str]) -> PlaceShape | None:
    """A cursor's two conditions, which have the same values."""
    if place is None:
        return None
    known = [next(values) for _ in range(place.beyond.count("%s"))]
    return PlaceShape(*(_numbered(side, iter(known)) for side in place))


def _numbered(condition: str, values: Iterator[str]) -> str:
    """A condition with the numbers of its values."""
    first, *rest = condition.split("%s")
    pieces = [first, *(f"{next(values)}{piece}" for piece in rest)]
    return "".join(pieces).replace("%%", "%")
