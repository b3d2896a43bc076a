"""What is recorded about dead letters, for whoever meets their records again.

A log is read again after its position went back, and by every rebuild. A record that has a dead
letter already goes by that letter's state and is not recorded twice: open and discarded ones stay
out of the rows, redriven ones go in, and the build lists that it holds them
(`applied_dead_letters`), so that no redrive is lost between builds.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from psycopg import Connection

from ingest.errors import Fault, Reason
from ingest.records import Dead, Item

Row = tuple[Any, ...]


class Recorded(NamedTuple):
    """What a dead letter says of its record."""

    state: str
    fault: Fault
    schema_id: int | None
    attempts: int

    @property
    def goes_in(self) -> bool:
        """Whether its event belongs into the rows."""
        return self.state == "redriven"


def recorded(
    connection: Connection[Row], topic_id: str, partition: int, *, start: int
) -> dict[int, Recorded]:
    """The dead letters of a partition from an offset on, by offset. None, in the normal run."""
    rows = connection.execute(
        'SELECT "offset", state, reason, detail, schema_id, attempts FROM ingest.dead_letters'
        ' WHERE topic_id = %s AND partition = %s AND "offset" >= %s',
        (topic_id, partition, start),
    )
    return {
        offset: Recorded(state, Fault(Reason(reason), detail), schema_id, attempts)
        for offset, state, reason, detail, schema_id, attempts in rows
    }


def as_recorded(item: Item, letters: Mapping[int, Recorded]) -> Item:
    """The item, or the dead letter that its record is and stays."""
    letter = letters.get(item.record.offset)
    if letter is None or letter.goes_in:
        return item
    return Dead(item.record, letter.fault, letter.schema_id, letter.attempts, on_record=True)


def list_applied(
    connection: Connection[Row], build: str, places: Iterable[tuple[str, int, int]]
) -> None:
    """Note that a build holds these redriven records: (topic id, partition, offset) of each.

    In the transaction that applies them to the build's rows.
    """
    rows = sorted(places)
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(
                f'INSERT INTO {build}.applied_dead_letters (topic_id, partition, "offset")'
                " VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                rows,
            )
