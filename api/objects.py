"""The GraphQL types that do not come from a view: nodes, pages, provenance, positions."""

from datetime import datetime
from enum import Enum

import strawberry

from api.position import Consistency, PartitionState
from api.scalars import BigInt


@strawberry.interface(description="Anything that has an id of its own, unique in this service.")
class Node:
    """Relay's Object Identification."""

    id: strawberry.ID = strawberry.field(
        description="Opaque id; `node(id:)` finds the object again."
    )


@strawberry.type(description="Which part of a list a page is.")
class PageInfo:
    """Relay's PageInfo."""

    has_next_page: bool = strawberry.field(description="Whether rows follow the page.")
    has_previous_page: bool = strawberry.field(description="Whether rows lie before the page.")
    start_cursor: str | None = strawberry.field(description="Cursor of the page's first row.")
    end_cursor: str | None = strawberry.field(description="Cursor of the page's last row.")


@strawberry.type(description="The event that made a row, by where it lies in Kafka.")
class EventSource:
    """Provenance."""

    topic: str = strawberry.field(description="Topic of the event.")
    partition: int = strawberry.field(description="Partition of that topic.")
    offset: BigInt = strawberry.field(description="Offset in that partition.")
    schema_id: int = strawberry.field(description="Registry id of the schema it was written with.")


@strawberry.type(description="How far the views have come in one partition of a topic.")
class PartitionPosition:
    """One row of the positions."""

    topic: str = strawberry.field(description="Topic.")
    partition: int = strawberry.field(description="Partition of the topic.")
    offset: BigInt | None = strawberry.field(
        description="Every event up to and including this offset is in; null before the first."
    )
    end_offset: BigInt | None = strawberry.field(
        description="The offset after the partition's last one, when the broker was last asked."
    )
    lag_events: BigInt | None = strawberry.field(
        description="How many offsets are still to be read; null while the end is not known."
    )
    event_at: datetime | None = strawberry.field(
        description="Kafka's timestamp of the last event that is in."
    )
    complete_as_of: datetime | None = strawberry.field(
        description="Every event of this partition acknowledged before this moment is in."
    )


@strawberry.type(description="What this answer contains: which events, and how fresh it is.")
class Position:
    """The consistency of the snapshot, in the data."""

    token: str = strawberry.field(
        description="The position as text, for `atLeast`: `topic:partition:offset` of what is in."
    )
    as_of: datetime | None = strawberry.field(
        description="Every event acknowledged before this moment is in; null while not known."
    )
    lag_ms: int | None = strawberry.field(
        description="Milliseconds from `asOf` to the answer, by the database's clock."
    )
    caught_up: bool = strawberry.field(
        description="Whether every partition's end was reached less than five seconds ago."
    )
    build: str = strawberry.field(description="The build of the views that was read.")
    partitions: list[PartitionPosition] = strawberry.field(
        description="The position per topic and partition."
    )


@strawberry.enum(description="Which way an order runs.")
class SortDirection(Enum):
    """The two ways."""

    ASC = strawberry.enum_value("ASC", description="Smallest first.")
    DESC = strawberry.enum_value("DESC", description="Largest first.")


def position(consistency: Consistency) -> Position:
    """The root field `position`."""
    return Position(
        token=consistency.token,
        as_of=consistency.as_of,
        lag_ms=consistency.lag_ms,
        caught_up=consistency.caught_up,
        build=consistency.build,
        partitions=[_partition(state) for state in consistency.partitions],
    )


def _partition(state: PartitionState) -> PartitionPosition:
    lag = state.lag_events
    return PartitionPosition(
        topic=state.topic,
        partition=state.partition,
        offset=BigInt(state.next_offset - 1) if state.next_offset > 0 else None,
        end_offset=None if state.end_offset is None else BigInt(state.end_offset),
        lag_events=None if lag is None else BigInt(lag),
        event_at=state.last_event_at,
        complete_as_of=state.complete_as_of,
    )
