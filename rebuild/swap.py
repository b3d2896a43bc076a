"""Swap: another build becomes the live one, in one transaction, with nothing lost in between.

    catch up → hold the live build → the last events → equal vectors → switch → commit

Live workers wait at the locked positions for at most half a second, are fenced by the epochs that
the switch draws, and go on in the new build. Queries under way end on the old build, the next ones
see the new one. Nothing is renamed, and the old build stays.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

import psycopg
from psycopg import Connection, errors

from ingest.connect import Target, run_all
from ingest.errors import RefusedError, TransientError
from ingest.operate import Build
from ingest.settings import IngestSettings
from ingest.write import CHANNEL
from rebuild import builds, redriven
from rebuild.builder import Builder, Pace, StoppedError
from rebuild.builds import Row
from rebuild.redriven import Place, Taker
from views import CATALOGUE, ddl
from views.positions import TABLE as POSITIONS
from views.positions import Partition, PositionVector

HOLD_S: Final = 0.5
"""How long live workers may be kept waiting for the last events."""
LOCK_WAIT_MS: Final = 2_000
IDLE_MS: Final = 5_000
TRIES: Final = 20
_PAUSE_S: Final = 0.3
_CLOSE_ENOUGH: Final = 2_000
"""Events behind at which the last step is tried."""
_CATCH_UP_ROUNDS: Final = 1_000
_MAX_PAYLOAD_BYTES: Final = 7_900
_OTHER_LOG: Final = "(o.cluster_id, o.topic_id) <> (n.cluster_id, n.topic_id)"
"""Whether two position rows are of different logs; null where one is of none yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapped:
    """A swap that was made. `back_by_events`: what is not in, after a rollback at once; `held_s`:
    how long live workers waited; `tries`: how often, the ones before were let go."""

    before: str
    now: str
    at: str
    events_since_proof: int | None = None
    back_by_events: int = 0
    held_s: float = 0.0
    tries: int = 1
    retried: tuple[Place, ...] = ()


class _TooSlowError(Exception):
    """The last events were not applied while the live build was held."""


class Swap:
    """Brings one build to where the live one is and makes it live; with `builder`, if one is at
    work on the build already."""

    def __init__(
        self,
        settings: IngestSettings,
        to: Build,
        *,
        topic_ids: list[str],
        partitions: Iterable[Partition],
        stop: threading.Event,
        builder: Builder | None = None,
    ) -> None:
        self._settings = settings
        self._dsn = settings.database_url.get_secret_value()
        self._to = to
        self._topic_ids = topic_ids
        self._partitions = tuple(partitions)
        self._stop = stop
        self._target = Target(build=to.name, keeps_dead=True)
        self._given = builder

    def caught_up(self, *, proof: Mapping[Partition, int] | None, retry: bool = False) -> Swapped:
        """Catch up, hold the live build, apply the rest, switch.

        `proof` is the position at which the build was proved equal; with `retry` open dead letters
        that today's decoder reads go in and are closed. RefusedError: the builds can't be made
        equal. TransientError: it was not possible to get in between; nothing was changed.
        """
        with self._opened() as (connection, taker):
            refuse_other_log(connection, builds.live(connection).name, self._to.name)
            with self._building() as builder:
                catch_up(connection, builder, self._topic_ids)
                taker.take(redriven.missing_from(connection, self._to.name))
                retried = self._retry(connection, taker) if retry else ()

                def last_step() -> Swapped:
                    catch_up(connection, builder, self._topic_ids)
                    return self._try(connection, builder, taker, proof, retried)

                return self._in_between(last_step)

    def at_once(self) -> Swapped:
        """Switch to a build as it is. Sessions that saw more get STALE until it has caught up.

        What was redriven meanwhile goes in before. TransientError as `caught_up`.
        """
        with self._opened() as (connection, taker):

            def step() -> Swapped:
                taker.take(redriven.missing_from(connection, self._to.name))
                return self._try_at_once(connection, taker)

            return self._in_between(step)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Connection[Row], Taker]]:
        with (
            builds.open_session(self._dsn, "swap") as connection,
            Taker(self._settings, self._target, self._stop) as taker,
        ):
            yield connection, taker

    def _building(self) -> AbstractContextManager[Builder]:
        """What brings the build forward. One that was given stays with who gave it."""
        if self._given is not None:
            return nullcontext(self._given)
        return Builder(self._settings, self._target, self._partitions, stop=self._stop)

    def _retry(self, connection: Connection[Row], taker: Taker) -> tuple[Place, ...]:
        return tuple(taker.retry(redriven.open_letters(connection, self._to.name)))

    def _in_between(self, step: Callable[[], Swapped]) -> Swapped:
        """Try until others leave room for it. Each try waits only so long and lets go of all."""
        why = ""
        for tried in range(TRIES):
            try:
                return replace(step(), tries=tried + 1)
            except _TooSlowError:
                why = "more events came than half a second applies"
            except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
                why = str(error.diag.message_primary)
            except (psycopg.OperationalError, errors.IdleInTransactionSessionTimeout) as error:
                return self._find_out(error)
            if self._stop.wait(_PAUSE_S):
                raise StoppedError
        raise TransientError(
            f"{self._to.name} could not be switched to in {TRIES} tries"
            f" ({why}). Nothing was changed; run it again."
        )

    @contextmanager
    def _holding(self, connection: Connection[Row]) -> Iterator[str]:
        """A transaction that keeps everybody else from the live build; its name."""
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}")
            # Frozen in here, or waiting for a registry, we are ended by the server.
            connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_MS}")
            live = hold_live(connection)
            point_people_views(connection, self._to.name)
            yield live

    def _try(
        self,
        connection: Connection[Row],
        builder: Builder,
        taker: Taker,
        proof: Mapping[Partition, int] | None,
        retried: tuple[Place, ...],
    ) -> Swapped:
        """One try; _TooSlowError: more came than could be applied in time, all were let go."""
        with self._holding(connection) as live:
            ends = lock_positions(connection, live)
            began_at = time.monotonic()
            letters = builds.letters(connection, self._topic_ids, above=builder.positions)
            if not builder.go_to(ends, letters, within_s=HOLD_S):
                raise _TooSlowError
            taker.take(redriven.missing_from(connection, self._to.name))
            starts = lock_positions(connection, self._to.name)
            refuse_unequal(live, ends, self._to.name, starts)
            close_retried(connection, retried)
            refuse_unclean(connection, self._to.name)
            switch(connection, live, self._to.name, ends, equal=True)
            held_s = time.monotonic() - began_at
            return Swapped(
                before=live,
                now=self._to.name,
                at=str(PositionVector(ends)),
                events_since_proof=None if proof is None else _gained(proof, ends),
                held_s=round(held_s, 3),
                retried=retried,
            )

    def _try_at_once(self, connection: Connection[Row], taker: Taker) -> Swapped:
        with self._holding(connection) as live:
            ends = lock_positions(connection, live)
            began_at = time.monotonic()
            taker.take(redriven.missing_from(connection, self._to.name))
            starts = lock_positions(connection, self._to.name)
            refuse_unclean(connection, self._to.name)
            switch(connection, live, self._to.name, starts, equal=False)
            return Swapped(
                before=live,
                now=self._to.name,
                at=str(PositionVector(starts)),
                back_by_events=_gained(starts, ends),
                held_s=round(time.monotonic() - began_at, 3),
            )

    def _find_out(self, error: psycopg.Error) -> Swapped:
        """The connection broke, perhaps at COMMIT: the builds say what happened."""
        with builds.open_session(self._dsn, "swap") as connection:
            live = builds.live(connection)
            if live.number != self._to.number:
                raise TransientError(
                    f"the database went away before the swap: {error}. Nothing was changed; run it"
                    " again."
                ) from error
            return already(connection, "", live)


def already(connection: Connection[Row], before: str, live: Build) -> Swapped:
    """A swap that went through though the answer to its commit was lost."""
    at = PositionVector(builds.positions(connection, live))
    return Swapped(before=before, now=live.name, at=str(at))


def catch_up(
    connection: Connection[Row],
    builder: Builder,
    topic_ids: list[str],
    *,
    pace: Pace | None = None,
) -> None:
    """Bring a build close to the live one."""
    for _ in range(_CATCH_UP_ROUNDS):
        ends = builds.positions(connection, builds.live(connection))
        letters = builds.letters(connection, topic_ids, above=builder.positions)
        builder.go_to(ends, letters, pace=pace)
        if _gained(ends, builds.positions(connection, builds.live(connection))) < _CLOSE_ENOUGH:
            return
    raise TransientError("live ingest is faster than the build: try again in a quieter hour")


def hold_live(connection: Connection[Row]) -> str:
    """Keep redrives, repairs and takers-over of the live build out until the transaction ends."""
    row = connection.execute(
        "SELECT name FROM ingest.builds WHERE state = 'live' FOR UPDATE"
    ).fetchone()
    if row is None:
        raise TransientError("which build is live changed just now: try again")
    return str(row[0])


def lock_positions(connection: Connection[Row], build: str) -> dict[Partition, int]:
    """Lock the positions of a build in their order: its workers wait from here on."""
    rows = connection.execute(
        f"SELECT topic, partition, next_offset FROM {build}.positions"
        " ORDER BY topic, partition FOR UPDATE"
    )
    return {(topic, partition): offset for topic, partition, offset in rows}


def refuse_unequal(
    live: str, ends: Mapping[Partition, int], build: str, starts: Mapping[Partition, int]
) -> None:
    """RefusedError: the two builds do not hold the same events."""
    if not same_vector(ends, starts):
        raise RefusedError(
            f"{build} is at {PositionVector(starts)} and {live} at {PositionVector(ends)}: they"
            " hold different events, so nothing was switched. `viewkeeper rebuild --from-scratch`"
            " makes a build that fits."
        )


def refuse_unclean(connection: Connection[Row], build: str) -> None:
    """RefusedError: the build holds dead letters that are not redriven.

    They went in to be closed by a swap, and somebody else has decided on them since, or that swap
    never was.
    """
    if not redriven.is_clean(connection, build):
        raise RefusedError(
            f"{build} holds events of dead letters that are open or discarded: they were to be"
            " redriven by its swap, and that did not happen, or somebody discarded them meanwhile."
            " Nothing was switched. `viewkeeper rebuild` makes another build in its place."
        )


def refuse_other_log(connection: Connection[Row], live: str, build: str) -> None:
    """RefusedError: the offsets of the two builds belong to different logs."""
    row = connection.execute(
        f"SELECT o.topic, o.partition FROM {live}.positions o JOIN {build}.positions n"
        " USING (topic, partition) WHERE o.next_offset > 0 AND n.next_offset > 0"
        f" AND {_OTHER_LOG}"
        " ORDER BY 1, 2 LIMIT 1"
    ).fetchone()
    if row is not None:
        raise RefusedError(
            f"{row[0]}:{row[1]} of {build} belongs to another log than that of {live}, so it can't"
            " be brought to the same position. `viewkeeper rebuild --other-log` makes a build of"
            " this log live at the log's end; `swap --rollback --now` goes back to the other log."
        )


def same_vector(one: Mapping[Partition, int], other: Mapping[Partition, int]) -> bool:
    """Whether two position vectors hold the same events; a partition not named is at 0."""
    return {p: n for p, n in one.items() if n} == {p: n for p, n in other.items() if n}


def point_people_views(connection: Connection[Row], build: str) -> None:
    """Let the SQL views for people show another build. People's queries hold them."""
    for view in CATALOGUE.views:
        run_all(connection, ddl.people_view(view, build=build))


_CARRIED: Final = (
    "paused",
    "stopped_reason",
    "loss_accepted_until",
    "end_offset",
    "observed_at",
)
"""What operators said of a partition, and what was seen of its end: they go with the live build,
where both are of one log."""


def switch(
    connection: Connection[Row], live: str, to: str, at: Mapping[Partition, int], *, equal: bool
) -> None:
    """Fence the workers of the old build, make the other one live, and tell everybody.

    Epochs only grow, over both builds, so that no worker takes an old epoch for its own.
    """
    carried = [*_CARRIED, *(["complete_as_of"] if equal else [])]
    known = [name for name in carried if name in POSITIONS.columns]
    same = f"FROM {live}.positions o WHERE o.topic = n.topic AND o.partition = n.partition"
    connection.execute(
        f"UPDATE {to}.positions n SET"
        f" owner_epoch = greatest(n.owner_epoch, o.owner_epoch) + 2, owner = NULL {same}"
    )
    connection.execute(
        f"UPDATE {to}.positions n SET {', '.join(f'{name} = o.{name}' for name in known)} {same}"
        f" AND ({_OTHER_LOG}) IS NOT TRUE"
    )
    connection.execute(f"UPDATE {live}.positions SET owner_epoch = owner_epoch + 1")
    connection.execute("UPDATE ingest.builds SET state = 'previous' WHERE name = %s", (live,))
    connection.execute(
        "UPDATE ingest.builds SET state = 'live', live_since_at = now() WHERE name = %s", (to,)
    )
    payload = f"{to} {PositionVector(at)}"
    short = len(payload.encode()) < _MAX_PAYLOAD_BYTES
    connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload if short else to))


def close_retried(connection: Connection[Row], places: Iterable[Place]) -> None:
    """Close the dead letters that went in, unless somebody else has decided on them meanwhile."""
    for place in places:
        connection.execute(
            "UPDATE ingest.dead_letters SET state = 'redriven', decided_at = now(),"
            " decided_by = 'rebuild' WHERE (topic_id, partition, \"offset\") = (%s, %s, %s)"
            " AND state = 'open'",
            place,
        )


def _gained(before: Mapping[Partition, int], now: Mapping[Partition, int]) -> int:
    return sum(max(0, n - before.get(p, 0)) for p, n in now.items())
