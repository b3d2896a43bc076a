"""Where the views stand, in the snapshot of an answer: the live build, its positions, the clock.

Stands apart because every statement of the compiled path and the first one of the plain path reads
it, in the same columns. What it costs is paid by every operation, so what was told the last time is
remembered by its text: most answers find that nothing has moved since.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from api.position import Consistency, PartitionState, consistency_of
from api.sql import name

COLUMNS: Final = 4
"""How many columns of a row it is."""
_REMEMBERED: Final = 16
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


def standing_sql(build: str) -> str:
    """The columns, of `ingest.builds AS b`."""
    return (
        "b.name, b.change_counter, statement_timestamp(), (SELECT json_agg(json_build_array("
        "p.topic, p.partition, p.next_offset, p.end_offset, p.cluster_id, p.topic_id,"
        f" p.last_event_at, p.complete_as_of)) FROM {name(build)}.positions AS p)"
    )


FROM_LIVE: Final = " FROM ingest.builds AS b WHERE b.state = 'live'"


def standing_of(columns: Sequence[bytes | None], topics: tuple[str, ...]) -> Consistency:
    """What the columns say, as PostgreSQL prints them in UTC."""
    build, counter, read_at, positions = columns
    assert build is not None
    assert counter is not None
    assert read_at is not None
    moment = datetime.fromisoformat(read_at.decode())
    known = _known(positions, topics, build.decode(), int(counter))
    return Consistency(
        vector=known.vector,
        token=known.token,
        as_of=known.as_of,
        read_at=moment,
        build=known.build,
        change_counter=known.change_counter,
        partitions=known.partitions,
    )


@lru_cache(_REMEMBERED)
def _known(
    positions: bytes | None, topics: tuple[str, ...], build: str, counter: int
) -> Consistency:
    """All but the clock, which never stands still."""
    states = [_state(row) for row in orjson.loads(positions or b"[]")]
    return consistency_of(
        states, topics=topics, read_at=_NEVER, build=build, change_counter=counter
    )


def _state(row: Sequence[Any]) -> PartitionState:
    topic, partition, next_offset, end_offset, cluster_id, topic_id, event_at, complete = row
    return PartitionState(
        topic=topic,
        partition=partition,
        next_offset=next_offset,
        end_offset=end_offset,
        cluster_id=cluster_id,
        topic_id=topic_id,
        last_event_at=_moment(event_at),
        complete_as_of=_moment(complete),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
