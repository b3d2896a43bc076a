"""One worker that fills one build up to a position: the worker's own page, with other ports.

Decode, fold, write, fences, halving of refused batches and waiting out of outages are
`ingest.worker`'s; only where the records come from and which build they go to differ. Used in this
process to bring a build forward, and in several processes at once for the bulk (`bulk.py`).
"""

import threading
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

from ingest.beside import Beside
from ingest.connect import Session, Target
from ingest.decode import PAUSE_S, Decoder
from ingest.errors import Reason, RefusedError
from ingest.form import EventForm, form_of
from ingest.settings import IngestSettings
from ingest.status import Status
from ingest.store import Store
from ingest.worker import BROKER_TIMEOUT_S, Limits, Worker
from rebuild.feed import Feed, Withheld, open_log
from schemas import contracts
from schemas.registry import Registry
from views import CATALOGUE
from views.model import Catalogue
from views.positions import Partition

Letters = Mapping[Partition, Mapping[int, Reason]]
"""Dead letters on record: per partition, offset and reason."""

BULK_ROWS = 50_000
BULK_BYTES = 64_000_000
_BULK_LINGER_S = 2.0
VIEWS = {v.stream.topic: v.name for v in CATALOGUE.stream_views}
"""What `ingest.fold.fold` needs of the catalogue."""


class Pace(Protocol):
    """Told after every turn how far it is; may wait."""

    def __call__(self, done: int) -> None: ...


class StoppedError(Exception):
    """Somebody asked for the end; the build resumes from its own positions."""


def event_forms() -> dict[str, EventForm]:
    """Per topic, how its events become rows."""
    return {
        view.stream.topic: form_of(view, contracts.load(view.stream.contract).schema)
        for view in CATALOGUE.stream_views
    }


def registry_of(settings: IngestSettings) -> Registry:
    """The registry's client."""
    password = settings.schema_registry_password
    return Registry(
        settings.schema_registry_url,
        user=settings.schema_registry_user,
        password=None if password is None else password.get_secret_value(),
    )


def open_decoder(
    settings: IngestSettings, stack: ExitStack, owner: str, stop: threading.Event
) -> Decoder:
    """The worker's decoder, closed by `stack`."""
    registry = registry_of(settings)
    stack.callback(registry.close)
    beside = Beside(settings.database_url.get_secret_value(), owner)
    stack.callback(beside.close)
    return Decoder(
        CATALOGUE.stream_views,
        {s.contract: contracts.load(s.contract).schema for s in CATALOGUE.streams},
        registry=registry,
        fingerprints=beside,
        stop=stop,
    )


class Builder:
    """Fills a build from its own positions. Use `go_to` as often as needed, then `close`.

    With `bulk`, batches are large, aggregates are left for the end, and the children of rollups are
    read before their parents: a parent's row finds them all and is written once, whole. With a
    `rate` of events a second, no batch is larger than a second's.
    """

    def __init__(
        self,
        settings: IngestSettings,
        target: Target,
        partitions: Collection[Partition],
        *,
        stop: threading.Event,
        bulk: bool = False,
        rate: float | None = None,
    ) -> None:
        self._stack = ExitStack()
        self._stop = stop
        self._partitions = tuple(partitions)
        self._turns = _turns(self._partitions) if bulk else [self._partitions]
        self._taken: list[Partition] = []
        self._begun_at: dict[Partition, int] = {}
        catalogue = _deferring() if bulk else CATALOGUE
        session = Session(
            settings.database_url.get_secret_value(),
            catalogue=catalogue,
            forms=event_forms(),
            allow_unsafe=settings.allow_unsafe_database,
            target=target,
        )
        log = open_log(settings)
        log.learn_topics(BROKER_TIMEOUT_S)
        self._feed = Feed(log, {})
        self._decoder = Withheld(open_decoder(settings, self._stack, session.owner, stop), {})
        self._status = Status()
        store = Store(session)
        self._worker = Worker(
            log=self._feed,
            store=store,
            decoder=self._decoder,
            views=VIEWS,
            clock=time.monotonic,
            limits=_limits(settings, bulk=bulk, rate=rate),
            status=self._status,
        )
        self._stack.callback(store.close)
        self._stack.callback(self._feed.close)
        self._stack.callback(self._worker.finish)

    def __enter__(self) -> "Builder":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the batch in hand and let go of everything."""
        self._stack.close()

    def go_to(
        self,
        until: Mapping[Partition, int],
        letters: Letters,
        *,
        within_s: float | None = None,
        pace: Pace | None = None,
    ) -> bool:
        """Bring the build to exactly `until`. False: not within the time.

        `letters` are the dead letters on record below `until`. RefusedError: a partition can't be
        read, or another builder has taken the build over. StoppedError: `stop` was set.
        """
        self._decoder.letters = letters
        self._feed.go_on_to(until)
        wanted = {p: n for p, n in until.items() if n > 0 and p in self._partitions}
        deadline = None if within_s is None else time.monotonic() + within_s
        while not self._reached(wanted):
            if self._stop.is_set():
                raise StoppedError
            if deadline is not None and time.monotonic() > deadline:
                return False
            self._take_turns(wanted)
            self._worker.step()
            self._refuse_hopeless()
            if pace is not None:
                pace(self._done())
        return True

    def _done(self) -> int:
        """How many offsets were passed here; not what was in already when a partition was taken."""
        positions = self._worker.positions().items()
        return sum(at - self._begun_at.setdefault(partition, at) for partition, at in positions)

    def _take_turns(self, wanted: Mapping[Partition, int]) -> None:
        """Begin with the next partitions when those before were read to their end."""
        if not self._turns:
            return
        # Committed or just read: one that goes on at its end has nothing more to read.
        there, read = self._worker.positions(), self._feed.positions(self._taken)
        if all(max(there.get(p, 0), read.get(p, 0)) >= wanted.get(p, 0) for p in self._taken):
            taken = self._turns.pop(0)
            self._taken += taken
            self._feed.assigned(taken)

    def _reached(self, wanted: Mapping[Partition, int]) -> bool:
        positions = self._worker.positions()
        return len(positions) == len(self._partitions) and all(
            positions.get(p, 0) >= n for p, n in wanted.items()
        )

    def _refuse_hopeless(self) -> None:
        if self._feed.fenced:
            raise RefusedError(
                "another rebuild has taken this build over; only one may run. Nothing that is"
                " served was changed."
            )
        if self._status.refused:
            raise RefusedError("; ".join(sorted(self._status.refused.values())))

    @property
    def positions(self) -> Mapping[Partition, int]:
        """How far it has come, per partition; one that it has not taken yet is at 0."""
        return dict.fromkeys(self._partitions, 0) | self._worker.positions()

    @property
    def waiting_for(self) -> str | None:
        """What is away, if anything is."""
        return self._status.waiting_for


def _deferring() -> Catalogue:
    """The stream views alone: `builds.make_whole` sums what these leave out."""
    views = tuple(
        view if view.rollup is None else replace(view, rollup=replace(view.rollup, deferred=True))
        for view in CATALOGUE.stream_views
    )
    return Catalogue(CATALOGUE.streams, views)


def _turns(partitions: Collection[Partition]) -> list[tuple[Partition, ...]]:
    """Partitions of the children of rollups, then the others."""
    children = CATALOGUE.children()
    first = {view.stream.topic for view in CATALOGUE.stream_views if view.name in children}
    turns = (
        tuple(p for p in partitions if p[0] in first),
        tuple(p for p in partitions if p[0] not in first),
    )
    return [turn for turn in turns if turn]


def _limits(settings: IngestSettings, *, bulk: bool, rate: float | None) -> Limits:
    if not bulk:
        return Limits(
            rows=settings.batch_rows,
            size_bytes=settings.batch_bytes,
            linger_s=0.02,
            retry_pause_s=PAUSE_S,
        )
    rows = max(settings.batch_rows, BULK_ROWS)
    return Limits(
        rows=rows if rate is None else max(1, min(rows, round(rate))),
        size_bytes=max(settings.batch_bytes, BULK_BYTES),
        linger_s=_BULK_LINGER_S,
        retry_pause_s=PAUSE_S,
    )
