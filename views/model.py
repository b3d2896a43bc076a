"""The words of the catalogue: stream, view, rollup, aggregate, and what each one declares.

Stands apart from the views themselves so that a view's file reads as a declaration and nothing
else. Ingest, rebuild, migrations and the API all work from these declarations; none of them knows
a view by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    FromClause,
    Integer,
    MetaData,
    Numeric,
    Select,
    Table,
    Text,
    text,
)

# The tables of one build. They carry no schema: a build's name (`build_1`, ...) is put in wherever
# SQL is made, because several builds exist side by side (docs/architecture.md).
BUILD = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    }
)

Key = Text(collation="C")
"""Text that rows are named, ordered and paged by: one order everywhere, whatever the locale."""
CURRENCY = {"currency": True}
"""`Column.info` of a currency: three capital letters, or the record is a dead letter."""
Timestamp = TIMESTAMP(timezone=True)
Money = Numeric(18, 4)
"""One amount, as an event carries it."""
MoneySum = Numeric(38, 4)
"""A sum of amounts."""

HOT = {"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.05"}
"""Storage of a table whose rows change all the time: room on the page for the next version."""


Columns = Any
"""The columns of some rows as attributes: `.c` of a table, or expressions of the same names."""


class Tombstone(StrEnum):
    """What a null value means on a stream."""

    HIDES = "hides"
    """The row is hidden and keeps its version; only a higher version brings it back."""
    DEAD_LETTER = "dead letter"
    """The key does not name a row, so the record is kept as a dead letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A topic with its contract.

    `contract` is the file in `schemas/`; the subject is `<topic>-value`. `key_field` is the field
    of the event that the record's key must equal. Unless `compactable`, a topic that is compacted
    is refused: records that share a key there are not versions of one thing.
    """

    topic: str
    contract: str
    key_field: str
    tombstone: Tombstone = Tombstone.DEAD_LETTER
    compactable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamView:
    """A table that keeps, per key, the event with the highest version.

    Every column whose name (or `info={"field": ...}`) is a field of the contract takes that
    field's value; `source_*` columns take the record's coordinates; columns of the rollup are
    recomputed from another view; the rest must have a server default or be computed.
    `customer_rows` is the SQL condition on the rows that a customer may read, with `{customer}`
    and `{build}` in it; None: a customer reads none.
    """

    table: Table
    stream: Stream
    rollup: "Rollup | None" = None
    customer_rows: str | None = None

    @property
    def name(self) -> str:
        """The name of the view and of its table."""
        return self.table.name

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row."""
        return tuple(column.name for column in self.table.primary_key.columns)

    @property
    def fields(self) -> dict[str, str]:
        """Column name -> field of the contract, in column order, the version included."""
        return {
            column.name: column.info.get("field", column.name)
            for column in self.table.columns
            if column.info.get("from_event", True)
        }

    @property
    def hides(self) -> bool:
        """Whether rows can be physically there and hidden from readers."""
        return "visible" in self.table.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollup:
    """Columns of a view that are recomputed from the rows of a child view with the same key prefix.

    `columns(parent, child)` takes the columns of both, by name as attributes, and gives per column
    of the parent an SQL aggregate over the child's rows that share the parent's key. The parent's
    row is the meeting place of both streams: it is locked whenever either side of it changes.

    `deferred`: only a change of the parent's own side recomputes it, nothing is locked for it, and
    whoever defers it ends with `views.ddl.roll_up` and `ingest.statements.hide_removed`. For the
    bulk of a build, where nobody reads it before. Without the parent's lock two writers of one
    child's key (in two partitions) may each count an event as applied of which one row is made.
    """

    child: StreamView
    columns: Callable[[Columns, Columns], Mapping[str, ColumnElement[Any]]]
    deferred: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """A table of sums over another view, declared once and used for deltas, fills and rebuilds.

    `contributions(source)` selects what each row of the source adds: the columns of the
    aggregate's primary key and one column per measure. Measures of equal keys are summed. The
    measure named `members` counts contributions: a group exists exactly as long as it is not 0.
    `customer_rows` as in `StreamView`.
    """

    table: Table
    source: StreamView
    members: str
    contributions: Callable[[FromClause], Select[Any]]
    customer_rows: str | None = None

    @property
    def name(self) -> str:
        """The name of the view and of its table."""
        return self.table.name

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that name a group."""
        return tuple(column.name for column in self.table.primary_key.columns)

    @property
    def measures(self) -> tuple[str, ...]:
        """The columns that are summed."""
        return tuple(
            column.name for column in self.table.columns if column.name not in set(self.key)
        )


View = StreamView | Aggregate


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All streams and views of the service, and the orders in which they are worked on.

    ValueError: a stream has two views.
    """

    streams: tuple[Stream, ...]
    views: tuple[View, ...]
    stream_views: tuple[StreamView, ...] = field(init=False)
    aggregates: tuple[Aggregate, ...] = field(init=False)

    def __post_init__(self) -> None:
        kept = tuple(view for view in self.views if isinstance(view, StreamView))
        topics = [view.stream.topic for view in kept]
        if len(set(topics)) < len(topics):
            raise ValueError(
                f"each stream has one view, and these are of {', '.join(topics)}: what else is to"
                " be kept of a stream is an aggregate over its view"
            )
        object.__setattr__(self, "stream_views", kept)
        object.__setattr__(
            self, "aggregates", tuple(view for view in self.views if isinstance(view, Aggregate))
        )

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that the worker subscribes to."""
        return tuple(stream.topic for stream in self.streams)

    def stream(self, topic: str) -> Stream:
        """The stream of a topic. KeyError: no stream names that topic."""
        return {stream.topic: stream for stream in self.streams}[topic]

    def view(self, name: str) -> View:
        """A view by its name. KeyError: the catalogue has no such view."""
        return {view.name: view for view in self.views}[name]

    def view_of(self, stream: Stream) -> StreamView:
        """The view that a stream's events are folded into."""
        return {view.stream.topic: view for view in self.stream_views}[stream.topic]

    def children(self) -> set[str]:
        """The names of the views that another view's rollup reads."""
        return {view.rollup.child.name for view in self.stream_views if view.rollup}

    def aggregates_of(self, view: StreamView) -> tuple[Aggregate, ...]:
        """The aggregates that sum a view's rows."""
        return tuple(a for a in self.aggregates if a.source.name == view.name)


def derived(name: str, *args: Any, **kwargs: Any) -> Column[Any]:
    """A column that no field of the event fills: kept by a rollup, computed, or a default."""
    return Column(name, *args, info={"from_event": False}, **kwargs)


def source_columns() -> list[Column[Any]]:
    """Where a row came from: the record that made it. One set of columns for every stream view."""
    return [
        derived("source_topic", Text, doc="Topic of the event that made this row."),
        derived("source_partition", Integer, doc="Partition of that event."),
        derived("source_offset", BigInteger, doc="Offset of that event."),
        derived("source_schema_id", Integer, doc="Registry id of the schema it was written with."),
        derived("source_recorded_at", Timestamp, doc="Kafka timestamp of that record."),
    ]


def visible_column() -> Column[Any]:
    """Whether readers see a row: false for placeholders and for rows that a tombstone hides."""
    return derived(
        "visible",
        Boolean,
        nullable=False,
        server_default=text("false"),
        doc="Whether readers see this row: not a placeholder, not hidden by a tombstone.",
    )
