"""Dead letters tried again: decoded by today's reader, then through the same fold and write.

One transaction applies a batch of them to the live build and closes them, so a kill at any moment
leaves each one either open and out, or redriven and in. No position moves. The live build's row is
locked first, which keeps a swap away, and its change counter is raised for readers.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from psycopg import Connection

from ingest.beside import Beside
from ingest.connect import Session
from ingest.decode import Decoder, SchemaSource
from ingest.errors import BatchRefusedError, Fault, Reason
from ingest.fold import fold
from ingest.letters import list_applied
from ingest.operate import MATCHES, DeadLetterFilter, matching
from ingest.records import Dead, Item, Record
from ingest.write import CHANNEL, apply
from schemas.contracts import load
from views import CATALOGUE

BATCH = 200
Row = tuple[Any, ...]


class DecoderPort(Protocol):
    """What is needed of the decoder; `ingest.decode.Decoder` is the real one."""

    def decode(self, records: Sequence[Record]) -> list[Item]: ...


@dataclass(frozen=True, slots=True)
class Letter:
    """An open dead letter with what it takes to try it again."""

    id: int
    topic_id: str
    record: Record
    purged: bool

    @property
    def place(self) -> tuple[str, int, int]:
        """Topic, partition and offset."""
        return self.record.topic, self.record.partition, self.record.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one dead letter: it is redriven, or stays open for a reason."""

    id: int
    topic: str
    partition: int
    offset: int
    redriven: bool
    reason: str | None
    detail: str | None


class Why(NamedTuple):
    """Why a dead letter stays open."""

    reason: str
    detail: str


@contextmanager
def redriving(
    dsn: str, registry: SchemaSource, *, who: str, dry_run: bool = False, stop: threading.Event
) -> Iterator["Redrive"]:
    """A redrive with a session and a decoder of its own, over the catalogue's streams."""
    contracts_of = {stream.contract: load(stream.contract).schema for stream in CATALOGUE.streams}
    with ExitStack() as stack:
        # The worker that runs has already looked whether the database is safe.
        beside = Beside(dsn, f"redrive by {who}")
        stack.callback(beside.close)
        decoder = Decoder(
            CATALOGUE.stream_views,
            contracts_of,
            registry=registry,
            fingerprints=beside,
            stop=stop,
        )
        session = Session(dsn, catalogue=CATALOGUE, forms=decoder.forms, allow_unsafe=True)
        stack.callback(session.close)
        views = {view.stream.topic: view.name for view in CATALOGUE.stream_views}
        yield Redrive(
            session=session, decoder=decoder, views=views, who=who, dry_run=dry_run, stop=stop
        )


class _SwappedError(Exception):
    """Another build went live since the session looked."""


class _RehearsedError(Exception):
    """Everything went as it would have; roll back."""


@dataclass(slots=True, kw_only=True)
class Redrive:
    """Redrives the dead letters that match, in the order in which they were recorded.

    `views` gives, per topic, the view's name and how many columns its key has; `who` is recorded
    as who decided. With `dry_run` every transaction is rolled back at its end. `stop` ends it
    between two batches; so does a kill, with the same result.
    """

    session: Session
    decoder: DecoderPort
    views: Mapping[str, str]
    who: str
    dry_run: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, which: DeadLetterFilter) -> Iterator[Outcome]:
        """The outcome of each letter, batch by batch, after its transaction.

        TransientError: database or registry are away, and what was not answered is not done.
        """
        last, after = self._last(which), 0
        while not self.stop.is_set():
            letters = self._next(which, after, last)
            if not letters:
                return
            after = letters[-1].id
            yield from self._tried(letters)

    def _last(self, which: DeadLetterFilter) -> int:
        """The newest letter there is now: those that come later are not chased."""
        with self.session.transaction() as connection:
            row = connection.execute(
                f"SELECT max(id) FROM ingest.dead_letters{MATCHES}", matching(which)
            ).fetchone()
        return (row[0] if row else None) or 0

    def _next(self, which: DeadLetterFilter, after: int, last: int) -> list[Letter]:
        with self.session.transaction() as connection:
            rows = connection.execute(
                'SELECT id, topic_id, topic, partition, "offset", key, value, recorded_at,'
                f" purged_at IS NOT NULL FROM ingest.dead_letters{MATCHES} AND state = 'open'"
                f" AND id > %(after)s AND id <= %(last)s ORDER BY id LIMIT {BATCH}",
                matching(which) | {"after": after, "last": last},
            ).fetchall()
        return [_letter(row) for row in rows]

    def _tried(self, letters: Sequence[Letter]) -> list[Outcome]:
        """Decode outside of any transaction, since the registry may take its time; then write."""
        faults = {letter.id: _PURGED for letter in letters if letter.purged}
        tried = [letter for letter in letters if not letter.purged]
        items = dict(
            zip(
                (letter.id for letter in tried),
                self.decoder.decode([letter.record for letter in tried]),
                strict=True,
            )
        )
        for letter_id, item in list(items.items()):
            if isinstance(item, Dead):
                faults[letter_id] = _why(item.fault)
                del items[letter_id]
        return self._written(letters, items, faults)

    def _written(
        self, letters: Sequence[Letter], items: Mapping[int, Item], faults: Mapping[int, Why]
    ) -> list[Outcome]:
        """Write a batch; where the database refuses it, halve it until the one is alone."""
        while True:
            try:
                return self._transaction(letters, items, dict(faults))
            except _SwappedError:
                self.session.close()
            except BatchRefusedError as error:
                if len(letters) > 1:
                    middle = len(letters) // 2
                    halves = letters[:middle], letters[middle:]
                    return [o for half in halves for o in self._written(half, items, faults)]
                why = Why(Reason.REFUSED_BY_DATABASE.value, str(error))
                return self._written(letters, {}, {letters[0].id: why})

    def _transaction(
        self, letters: Sequence[Letter], items: Mapping[int, Item], faults: dict[int, Why]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            with self.session.transaction() as connection:
                hold_live(connection, self.session.build)
                still_open = _locked(connection, [letter.id for letter in letters])
                known = _topic_ids(connection, self.session.build)
                for letter in letters:
                    if letter.topic_id != known.get(letter.record.topic, letter.topic_id):
                        faults[letter.id] = _OF_ANOTHER_LIFE
                letters = [letter for letter in letters if letter.id in still_open]
                good = [letter for letter in letters if letter.id not in faults]
                faults |= self._applied(connection, good, items)
                self._close(connection, letters, faults)
                outcomes = [_outcome(letter, faults.get(letter.id)) for letter in letters]
                if self.dry_run:
                    raise _RehearsedError
        except _RehearsedError:
            pass
        return outcomes

    def _applied(
        self, connection: Connection[Row], letters: Sequence[Letter], items: Mapping[int, Item]
    ) -> dict[int, Why]:
        """Apply what could be decoded; the faults of those whose version came before."""
        folded = fold([items[letter.id] for letter in letters], advances={}, views=self.views)
        apply(connection, self.session.statements, folded)
        conflicts = {
            (dead.record.topic, dead.record.partition, dead.record.offset): _why(dead.fault)
            for dead in folded.dead
        }
        return {x.id: conflicts[x.place] for x in letters if x.place in conflicts}

    def _close(
        self,
        connection: Connection[Row],
        letters: Sequence[Letter],
        faults: Mapping[int, Why],
    ) -> None:
        closed = [letter for letter in letters if letter.id not in faults]
        connection.execute(
            "UPDATE ingest.dead_letters SET state = 'redriven', decided_at = now(),"
            " decided_by = %s, last_seen_at = now(), attempts = attempts + 1 WHERE id = ANY(%s)",
            (self.who, [letter.id for letter in closed]),
        )
        connection.execute(
            "UPDATE ingest.dead_letters SET last_seen_at = now(), attempts = attempts + 1"
            " WHERE id = ANY(%s)",
            ([letter.id for letter in letters if letter.id in faults],),
        )
        if not closed:
            return
        build = self.session.build
        places = [(x.topic_id, x.record.partition, x.record.offset) for x in closed]
        list_applied(connection, build, places)
        connection.execute(
            "UPDATE ingest.builds SET change_counter = change_counter + 1 WHERE name = %s", (build,)
        )
        connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, build))


_PURGED = Why("PURGED", "its bytes were removed: there is nothing to try again")
_OF_ANOTHER_LIFE = Why(
    "ANOTHER_TOPIC", "it is of an earlier life of its topic, and the live build of the present one"
)


def _why(fault: Fault) -> Why:
    return Why(fault.reason.value, str(fault))


def hold_live(connection: Connection[Row], build: str) -> None:
    """Keep every swap away from the live build until the transaction ends.

    NO KEY UPDATE rather than SHARE: two that hold a SHARE and then raise the change counter would
    wait for each other. Raises _SwappedError where another build is live by now.
    """
    row = connection.execute(
        "SELECT name FROM ingest.builds WHERE state = 'live' FOR NO KEY UPDATE"
    ).fetchone()
    if row is None or row[0] != build:
        raise _SwappedError


def _locked(connection: Connection[Row], ids: Sequence[int]) -> set[int]:
    rows = connection.execute(
        "SELECT id FROM ingest.dead_letters WHERE id = ANY(%s) AND state = 'open'"
        " ORDER BY id FOR UPDATE",
        (list(ids),),
    )
    return {row[0] for row in rows}


def _topic_ids(connection: Connection[Row], build: str) -> dict[str, str]:
    rows = connection.execute(
        f"SELECT DISTINCT topic, topic_id FROM {build}.positions WHERE topic_id IS NOT NULL"
    )
    return dict(rows.fetchall())


def _letter(row: Row) -> Letter:
    letter_id, topic_id, topic, partition, offset, key, value, recorded_at, purged = row
    assert isinstance(recorded_at, datetime)
    timestamp_ms = round(recorded_at.timestamp() * 1000)
    record = Record(topic, partition, offset, key, value, (), timestamp_ms, -1)
    return Letter(letter_id, topic_id, record, purged)


def _outcome(letter: Letter, why: Why | None) -> Outcome:
    topic, partition, offset = letter.place
    return Outcome(
        id=letter.id,
        topic=topic,
        partition=partition,
        offset=offset,
        redriven=why is None,
        reason=why.reason if why else None,
        detail=why.detail if why else None,
    )
