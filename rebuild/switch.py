"""One call of swap or rollback, over all its tries: which build was chosen, and whether it is in.

Stands apart from `swap.py`, which switches once: here an outage is waited out, and whether an
earlier try went through although its answer was lost is asked of the builds.
"""

import threading
import time
from collections.abc import Callable
from contextlib import closing

from psycopg import Connection

from ingest.operate import Build
from ingest.settings import IngestSettings
from rebuild import builds, checks, turn
from rebuild.builds import Row
from rebuild.feed import open_log
from rebuild.patience import Patience
from rebuild.report import Report, Watcher
from rebuild.swap import Swap, already

Choose = Callable[[Connection[Row]], Build]


class Switch:
    """Makes the build live that `choose` names. What was chosen once stays chosen."""

    def __init__(
        self,
        settings: IngestSettings,
        watcher: Watcher,
        stop: threading.Event,
        what: str,
        choose: Choose,
    ) -> None:
        self._settings = settings
        self._watcher = watcher
        self._stop = stop
        self._what = what
        self._choose = choose
        self._chosen: tuple[Build, Build] | None = None
        self._patience = Patience(watcher.say, stop)

    def run(self, *, now: bool) -> Report:
        """Switch: `now` to the build as it is, else caught up first."""
        return self._patience.call(lambda: self._once(now=now))

    def _once(self, *, now: bool) -> Report:
        dsn = self._settings.database_url.get_secret_value()
        with turn.held(dsn, self._what) as connection:
            live = builds.live(connection)
            before, to = self._chosen = self._chosen or (live, self._choose(connection))
            report = Report(build=to.name, live=before.name)
            if live.number == to.number:
                report.swapped = already(connection, before.name, live)
                return report
            swap = self._swap(to)
            began_at = time.monotonic()
            if now:
                report.swapped = swap.at_once()
            else:
                self._watcher.say(f"{to.name} catches up with {live.name}")
                report.swapped = swap.caught_up(proof=builds.proof_of(connection, to))
            report.seconds["swap"] = round(time.monotonic() - began_at, 2)
            return report

    def _swap(self, to: Build) -> Swap:
        with closing(open_log(self._settings)) as log:
            start = checks.look(self._settings, log, accept_missing=True)
        self._patience.well()
        return Swap(
            self._settings,
            to,
            topic_ids=start.topic_ids,
            partitions=sorted(start.brokers),
            stop=self._stop,
        )
