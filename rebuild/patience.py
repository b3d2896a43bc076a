"""Waiting out an outage of database, broker or registry in the middle of a rebuild.

Stands apart because it is about connections and not about builds: whoever is called is called
again, and goes on from what the build's own positions say.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import psycopg
from confluent_kafka import KafkaException

from ingest.errors import TransientError
from schemas.registry import RegistryUnavailableError

T = TypeVar("T")
OUTAGE_MOST_S: Final = 600.0
"""How long an outage may last before the command gives up."""
_PAUSE_S: Final = 1.0
_AWAY: Final = (psycopg.InterfaceError, KafkaException, RegistryUnavailableError, TimeoutError)
_GOING_DOWN: Final = ("57P01", "57P02", "57P03")
"""SQLSTATE of a server that ends its sessions, crashes or starts."""
_DEADLOCK: Final = "40P01"
_DEADLOCKS_MOST: Final = 5
"""How often what was ended for somebody else's sake is done again; more would be our own fault."""


class Patience:
    """Calls again after an outage. `well` says that everything answers, so the wait is over.

    Until it was called once nothing is waited for: a wrong address is told at once.
    """

    def __init__(self, say: Callable[[str], None], stop: threading.Event) -> None:
        self._say = say
        self._stop = stop
        self._well_at: float | None = None

    def well(self) -> None:
        """Database and broker answer."""
        self._well_at = time.monotonic()

    def call(self, work: Callable[[], T]) -> T:
        """What `work` answers, in the end. Errors that are no outage are raised at once."""
        away_since: float | None = None
        deadlocks = 0
        while True:
            began_at = time.monotonic()
            try:
                return work()
            except (psycopg.Error, TransientError) as error:
                deadlocks += is_deadlock(error)
                again = is_outage(error) or (is_deadlock(error) and deadlocks <= _DEADLOCKS_MOST)
                if self._well_at is None or not again:
                    raise
                if away_since is None or self._well_at > began_at:
                    away_since = time.monotonic()
                    self._say(f"waiting, it goes on by itself: {_first_line(error)}")
                if time.monotonic() - away_since > OUTAGE_MOST_S or self._stop.wait(_PAUSE_S):
                    raise


def is_outage(error: BaseException | None) -> bool:
    """Whether a server is away, as the error or what caused it tells."""
    if error is None:
        return False
    if isinstance(error, _AWAY):
        return True
    if isinstance(error, psycopg.OperationalError):
        state = error.sqlstate
        return state is None or state.startswith("08") or state in _GOING_DOWN
    return is_outage(error.__cause__)


def is_deadlock(error: BaseException | None) -> bool:
    """Whether the server ended us so that somebody else could go on."""
    if error is None:
        return False
    return getattr(error, "sqlstate", None) == _DEADLOCK or is_deadlock(error.__cause__)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
