"""The pages of the operator: rebuild, verify, swap, roll back.

    refuse early → build in bulk → make whole → catch up → stop at V → verify → swap

Killed anywhere, the live build is untouched, and the next call resumes from the build's own
positions: what was committed is in it, and each step that makes it whole may be done again.
"""

import threading
from collections.abc import Collection

from psycopg import Connection

from ingest.errors import RefusedError
from ingest.operate import Build
from ingest.settings import IngestSettings
from rebuild import builds, compare, turn
from rebuild.builds import Row
from rebuild.report import Options, Report, Watcher
from rebuild.switch import Switch
from rebuild.work import Asked, Call


def rebuild(
    settings: IngestSettings, options: Options, watcher: Watcher, stop: threading.Event
) -> Report:
    """Build all views anew, prove them equal, and make them live.

    RefusedError: it must not be, or another one runs. A result that is not equal stops before the
    swap unless differences are accepted; the build is kept for the next call. An outage of the
    database is waited out, and the build goes on from its own positions.
    """
    call = Call(Asked(settings, options, watcher, stop, "rebuild"))

    def work() -> Report:
        if call.was_switched():
            return call.report
        with call.work() as work:
            work.fill()
            if options.other_log:
                work.report.notes.append("another log: no proof is possible")
            else:
                work.prove()
            result = work.report.result
            if result is not None and not result.equal and not options.accept_differences:
                return work.report
            builds.mark_ready(work.connection, work.build, work.proof)
            if options.swap:
                work.swap()
            return work.report

    return call.patience.call(work)


def verify(
    settings: IngestSettings, options: Options, watcher: Watcher, stop: threading.Event
) -> Report:
    """Build all views anew, compare them with the live ones, and throw the build away.

    An outage of the database is waited out.
    """
    call = Call(Asked(settings, options, watcher, stop, "verify"))

    def work() -> Report:
        with call.work() as work:
            work.fill()
            work.prove()
            work.throw_away()
            return work.report

    return call.patience.call(work)


def swap_ready(settings: IngestSettings, watcher: Watcher, stop: threading.Event) -> Report:
    """Make the build live that `rebuild --no-swap` left ready. An outage is waited out."""

    def choose(connection: Connection[Row]) -> Build:
        ready = [u.build for u in builds.unfinished(connection) if u.build.state == "ready"]
        if not ready:
            raise RefusedError("no build is ready: `viewkeeper rebuild --no-swap` makes one")
        return ready[-1]

    return Switch(settings, watcher, stop, "swap", choose).run(now=False)


def roll_back(
    settings: IngestSettings, watcher: Watcher, stop: threading.Event, *, now: bool
) -> Report:
    """Make the previous build live again: caught up first, or at once. An outage is waited out."""

    def choose(connection: Connection[Row]) -> Build:
        kept = builds.previous(connection)
        if not kept:
            raise RefusedError("no previous build is kept: there is nothing to go back to")
        return kept[0]

    return Switch(settings, watcher, stop, "swap --rollback", choose).run(now=now)


def drop_previous(settings: IngestSettings) -> list[str]:
    """Drop the builds that were live before; which."""
    dsn = settings.database_url.get_secret_value()
    with turn.held(dsn, "swap --drop-previous") as connection:
        return _dropped(connection, builds.previous(connection))


def abandon(settings: IngestSettings) -> list[str]:
    """Drop the builds that a rebuild or verify left unfinished or ready; which."""
    dsn = settings.database_url.get_secret_value()
    with turn.held(dsn, "rebuild --abandon") as connection:
        return _dropped(connection, [u.build for u in builds.unfinished(connection)])


def _dropped(connection: Connection[Row], gone: list[Build]) -> list[str]:
    for build in gone:
        builds.drop(connection, build)
    return [build.name for build in gone]


def declared(names: Collection[str]) -> tuple[str, ...]:
    """Views and columns named by an operator. ValueError: the catalogue has no such thing."""
    wrong = sorted(set(names) - compare.declarable())
    if wrong:
        raise ValueError(f"there is no view or column {', '.join(wrong)}; name it view.column")
    return tuple(names)
