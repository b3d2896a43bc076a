"""Dead letters that belong into a build: redriven ones that it has not taken in yet.

Their place in the log was passed as that of a dead letter, as on the live build; their event is
applied afterwards, through the same fold and statements, and the build lists it. Versions make the
order of no account.
"""

import base64
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any

from psycopg import Connection

from ingest.connect import Session, Target
from ingest.decode import Decoder
from ingest.errors import RefusedError
from ingest.fold import fold
from ingest.letters import list_applied
from ingest.records import Dead, Item, Record
from ingest.settings import IngestSettings
from ingest.write import apply
from rebuild.builder import VIEWS, event_forms, open_decoder
from rebuild.feed import open_log
from views import CATALOGUE

Row = tuple[Any, ...]
Place = tuple[str, int, int]
"""Topic id, partition, offset."""
_READ_S = 30.0


def missing_from(connection: Connection[Row], build: str) -> list[Row]:
    """Redriven dead letters that a build has not taken in.

    Letters of topics that the build's positions do not know belong to another log.
    """
    return connection.execute(_letters(build, "d.state = 'redriven'")).fetchall()


def is_clean(connection: Connection[Row], build: str) -> bool:
    """Whether a build holds no dead letter that is still open: one that a swap was to close."""
    row = connection.execute(
        f"SELECT NOT EXISTS (SELECT FROM {build}.applied_dead_letters l"
        ' JOIN ingest.dead_letters d USING (topic_id, partition, "offset")'
        " WHERE d.state <> 'redriven')"
    ).fetchone()
    return row == (True,)


def open_letters(connection: Connection[Row], build: str) -> list[Row]:
    """Open dead letters of the build's log that have their bytes."""
    return connection.execute(_letters(build, "d.state = 'open'")).fetchall()


def _letters(build: str, wanted: str) -> str:
    return (
        'SELECT d.topic, d.topic_id, d.partition, d."offset", d.key, d.value, d.headers,'
        f" d.recorded_at, d.purged_at IS NOT NULL FROM ingest.dead_letters d WHERE {wanted}"
        f" AND EXISTS (SELECT FROM {build}.positions p WHERE p.topic_id = d.topic_id"
        " AND p.partition = d.partition)"
        f" AND NOT EXISTS (SELECT FROM {build}.applied_dead_letters l"
        " WHERE l.topic_id = d.topic_id AND l.partition = d.partition"
        ' AND l."offset" = d."offset")'
        ' ORDER BY d.topic, d.partition, d."offset"'
    )


class Taker:
    """Takes dead letters into a build; opens what it needs at the first one."""

    def __init__(self, settings: IngestSettings, target: Target, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._stack = ExitStack()
        self._session = Session(
            settings.database_url.get_secret_value(),
            catalogue=CATALOGUE,
            forms=event_forms(),
            allow_unsafe=settings.allow_unsafe_database,
            target=target,
        )
        self._stack.callback(self._session.close)
        self._decoder: Decoder | None = None

    def __enter__(self) -> "Taker":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def take(self, letters: Sequence[Row]) -> int:
        """Apply redriven letters and list them. RefusedError: one can't be decoded any more."""
        if not letters:
            return 0
        items = self._items(letters)
        for letter, item in zip(letters, items, strict=True):
            if isinstance(item, Dead):
                raise RefusedError(
                    f"dead letter {_named(letter)} was redriven, but can't be decoded now:"
                    f" {item.fault}. Build with the code that redrove it."
                )
        self._apply(items, letters)
        return len(letters)

    def retry(self, letters: Sequence[Row]) -> list[Place]:
        """Apply those of the open letters that today's decoder can read; which ones."""
        items = self._items(letters) if letters else []
        good = [
            (letter, item)
            for letter, item in zip(letters, items, strict=True)
            if not isinstance(item, Dead)
        ]
        taken: list[Place] = []
        for letter, item in good:  # one by one: a conflict is one letter's own
            taken += self._apply([item], [letter])
        return taken

    def _apply(self, items: list[Item], letters: Sequence[Row]) -> list[Place]:
        folded = fold(items, advances={}, views=VIEWS)
        with self._session.transaction() as connection:
            apply(connection, self._session.statements, folded)
            conflicting = {
                (dead.record.topic, dead.record.partition, dead.record.offset)
                for dead in folded.dead
            }
            places = [
                _place(letter)
                for letter in letters
                if (letter[0], letter[2], letter[3]) not in conflicting
            ]
            list_applied(connection, self._session.build, places)
            if places:  # rows change though no position moves
                connection.execute(
                    "UPDATE ingest.builds SET change_counter = change_counter + 1 WHERE name = %s",
                    (self._session.build,),
                )
        return places

    def _items(self, letters: Sequence[Row]) -> list[Item]:
        if self._decoder is None:
            self._decoder = open_decoder(
                self._settings, self._stack, self._session.owner, self._stop
            )
        items = self._decoder.decode([self._record(letter) for letter in letters])
        if self._decoder.decode_again(items, afresh=True):
            self._decoder.decode_again(items, afresh=False)
        return items

    def _record(self, letter: Row) -> Record:
        topic, _topic_id, partition, offset, key, value, headers, recorded_at, purged = letter
        if purged:
            return self._from_log(topic, partition, offset)
        assert isinstance(recorded_at, datetime)
        return Record(
            topic,
            partition,
            offset,
            key,
            value,
            tuple((n, None if v is None else base64.b64decode(v)) for n, v in headers or ()),
            round(recorded_at.timestamp() * 1000),
            -1,
        )

    def _from_log(self, topic: str, partition: int, offset: int) -> Record:
        """The record itself, where its copy was purged."""
        log = open_log(self._settings)
        try:
            log.start({(topic, partition): offset})
            for record in log.poll(1, _READ_S):
                if record.offset == offset:
                    return record
        finally:
            log.close()
        raise RefusedError(
            f"dead letter {topic}:{partition}:{offset} was redriven and purged, and its record is"
            " gone from the log: no build can hold it any more."
        )


def _place(letter: Row) -> Place:
    return letter[1], letter[2], letter[3]


def _named(letter: Row) -> str:
    return f"{letter[0]}:{letter[2]}:{letter[3]}"
