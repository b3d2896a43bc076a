"""Swap: another build becomes the live one, in one transaction, with nothing lost in between.

    catch up → hold the live build → the last events → equal vectors → switch → commit

Live workers wait at the locked positions for at most half a second, are fenced by the epochs that
the switch draws, and go on in the new build. Queries under way end on the old build, the next ones
see the new one. Nothing is renamed, and the old build stays.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import psycopg
from psycopg import Connection, errors

from ingest.connect import Target
from ingest.errors import RefusedError, TransientError
from ingest.operate import Build
from ingest.settings import IngestSettings
from ingest.write import CHANNEL
from rebuild import builds, redriven
from rebuild.builder import Builder
from rebuild.builds import Row
from rebuild.redriven import Place, Taker
from views import CATALOGUE, ddl
from views.positions import TABLE as POSITIONS
from views.positions import Partition, PositionVector

HOLD_S: Final = 0.5
"""How long live workers may be kept waiting for the last events."""
LOCK_WAIT_MS: Final = 2_000
TRIES: Final = 20
_PAUSE_S: Final = 0.3
_CLOSE_ENOUGH: Final = 2_000
"""Events behind at which the last step is tried."""
_CATCH_UP_ROUNDS: Final = 1_000
_MAX_PAYLOAD_BYTES: Final = 7_900


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
    """Brings one build to where the live one is and makes it live."""

    def __init__(
        self,
        settings: IngestSettings,
        to: Build,
        *,
        topic_ids: list[str],
        partitions: Iterable[Partition],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._dsn = settings.database_url.get_secret_value()
        self._to = to
        self._topic_ids = topic_ids
        self._partitions = tuple(partitions)
        self._stop = stop
        self._target = Target(build=to.name, keeps_dead=True)

    def caught_up(self, *, proof: Mapping[Partition, int] | None, retry: bool = False) -> Swapped:
        """Catch up, hold the live build, apply the rest, switch.

        `proof` is the position at which the build was proved equal; with `retry` open dead letters
        that today's decoder reads go in and are closed. RefusedError: the builds can't be made
        equal. TransientError: it was not possible to get in between; nothing was changed.
        """
        with (
            builds.open_session(self._dsn, "swap") as connection,
            Builder(self._settings, self._target, self._partitions, stop=self._stop) as builder,
            Taker(self._settings, self._target, self._stop) as taker,
        ):
            catch_up(connection, builder, self._topic_ids)
            taker.take(redriven.missing_from(connection, self._to.name, listed_by=None))
            retried = self._retry(connection, taker) if retry else ()
            why = ""
            for tried in range(TRIES):
                catch_up(connection, builder, self._topic_ids)
                try:
                    swapped = self._try(connection, builder, taker, proof, retried)
                    return replace(swapped, tries=tried + 1)
                except _TooSlowError:
                    why = "more events came than half a second applies"
                except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
                    why = str(error.diag.message_primary)
                except psycopg.OperationalError as error:
                    return self._find_out(error)
                if self._stop.wait(_PAUSE_S):
                    break
        raise TransientError(
            f"{self._to.name} could not be switched to in {TRIES} tries"
            f" ({why}). Nothing was changed; run it again."
        )

    def at_once(self) -> Swapped:
        """Switch to a build as it is. Sessions that saw more get STALE until it has caught up."""
        with builds.open_session(self._dsn, "swap") as connection:
            with connection.transaction():
                live = hold_live(connection)
                point_people_views(connection, self._to.name)
                ends = lock_positions(connection, live)
                starts = lock_positions(connection, self._to.name)
                switch(connection, live, self._to.name, starts, equal=False)
            with Taker(self._settings, self._target, self._stop) as taker:
                taker.take(redriven.missing_from(connection, self._to.name, listed_by=None))
        back = sum(max(0, n - starts.get(p, 0)) for p, n in ends.items())
        return Swapped(
            before=live, now=self._to.name, at=str(PositionVector(starts)), back_by_events=back
        )

    def _retry(self, connection: Connection[Row], taker: Taker) -> tuple[Place, ...]:
        return tuple(taker.retry(redriven.open_letters(connection, self._to.name)))

    def _try(
        self,
        connection: Connection[Row],
        builder: Builder,
        taker: Taker,
        proof: Mapping[Partition, int] | None,
        retried: tuple[Place, ...],
    ) -> Swapped:
        """One try; _TooSlowError: more came than could be applied in time, all were let go."""
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}")
            live = hold_live(connection)
            point_people_views(connection, self._to.name)
            ends = lock_positions(connection, live)
            began_at = time.monotonic()
            letters = builds.letters(connection, self._topic_ids, above=builder.positions)
            if not builder.go_to(ends, letters, within_s=HOLD_S):
                raise _TooSlowError
            taker.take(redriven.missing_from(connection, self._to.name, listed_by=None))
            starts = lock_positions(connection, self._to.name)
            refuse_unequal(live, ends, self._to.name, starts)
            close_retried(connection, retried)
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

    def _find_out(self, error: psycopg.OperationalError) -> Swapped:
        """The connection broke, perhaps at COMMIT: the builds say what happened."""
        with builds.open_session(self._dsn, "swap") as connection:
            live = builds.live(connection)
            if live.number != self._to.number:
                raise TransientError(
                    f"the database went away before the swap: {error}. Nothing was changed; run it"
                    " again."
                ) from error
            at = PositionVector(builds.positions(connection, live))
        return Swapped(before="", now=live.name, at=str(at))


def catch_up(connection: Connection[Row], builder: Builder, topic_ids: list[str]) -> None:
    """Bring a build close to the live one."""
    for _ in range(_CATCH_UP_ROUNDS):
        ends = builds.positions(connection, builds.live(connection))
        builder.go_to(ends, builds.letters(connection, topic_ids, above=builder.positions))
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


def same_vector(one: Mapping[Partition, int], other: Mapping[Partition, int]) -> bool:
    """Whether two position vectors hold the same events; a partition not named is at 0."""
    return {p: n for p, n in one.items() if n} == {p: n for p, n in other.items() if n}


def point_people_views(connection: Connection[Row], build: str) -> None:
    """Let the SQL views for people show another build. People's queries hold them."""
    for view in CATALOGUE.views:
        builds.run_all(connection, ddl.people_view(view, build=build))


_CARRIED: Final = ("paused", "stopped_reason", "loss_accepted_until", "end_offset", "observed_at")
"""What operators said of a partition, and what was seen of its end: they go with the live build."""


def switch(
    connection: Connection[Row], live: str, to: str, at: Mapping[Partition, int], *, equal: bool
) -> None:
    """Fence the workers of the old build, make the other one live, and tell everybody.

    Epochs only grow, over both builds, so that no worker takes an old epoch for its own.
    """
    carried = [*_CARRIED, *(["complete_as_of"] if equal else [])]
    known = [name for name in carried if name in POSITIONS.columns]
    connection.execute(
        f"UPDATE {to}.positions n SET"
        " owner_epoch = greatest(n.owner_epoch, o.owner_epoch) + 2, owner = NULL,"
        f" {', '.join(f'{name} = o.{name}' for name in known)} FROM {live}.positions o"
        " WHERE o.topic = n.topic AND o.partition = n.partition"
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
