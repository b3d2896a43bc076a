"""Outages are waited out once something was reached; everything else is told at once."""

import threading

import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException

from ingest.errors import TransientError
from rebuild import patience
from rebuild.patience import Patience, is_outage
from schemas.registry import RegistryUnavailableError


def caused_by(cause: Exception) -> TransientError:
    try:
        raise TransientError("away") from cause
    except TransientError as error:
        return error


OUTAGES = [
    psycopg.OperationalError("server closed the connection unexpectedly"),
    psycopg.errors.AdminShutdown("terminating connection"),
    psycopg.errors.CannotConnectNow("the database system is starting up"),
    psycopg.InterfaceError("the connection is closed"),
    caused_by(psycopg.OperationalError("connection refused")),
    caused_by(KafkaException(KafkaError(KafkaError._TRANSPORT))),
    caused_by(TimeoutError()),
    caused_by(RegistryUnavailableError("503")),
]
OTHERS = [
    psycopg.errors.DiskFull("could not extend file"),
    psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"),
    psycopg.errors.UndefinedTable("relation does not exist"),
    TransientError("live ingest is faster than the build"),
]


@pytest.fixture
def waiter(monkeypatch: pytest.MonkeyPatch) -> tuple[Patience, list[str], threading.Event]:
    """Somebody who waits no time at all, what was said, and how to stop it."""
    monkeypatch.setattr(patience, "_PAUSE_S", 0.0)
    said: list[str] = []
    stop = threading.Event()
    return Patience(said.append, stop), said, stop


Waiter = tuple[Patience, list[str], threading.Event]


@pytest.mark.parametrize("error", OUTAGES, ids=repr)
def test_an_outage_is_waited_out_and_told_once(error: Exception, waiter: Waiter) -> None:
    waits, said, _ = waiter
    assert is_outage(error)
    tries = 0

    def work() -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            waits.well()
        if tries < 4:
            raise error
        return "done"

    assert waits.call(work) == "done"
    assert tries == 4
    assert len(said) == 1


DEADLOCKS = [
    psycopg.errors.DeadlockDetected("deadlock detected"),
    caused_by(psycopg.errors.DeadlockDetected("deadlock detected")),
]


@pytest.mark.parametrize("error", DEADLOCKS, ids=repr)
def test_what_a_deadlock_ended_is_done_again_but_not_for_ever(
    error: Exception, waiter: Waiter
) -> None:
    waits, _, _ = waiter
    tries = 0

    def work(most: int) -> int:
        nonlocal tries
        tries += 1
        waits.well()
        if tries <= most:
            raise error
        return tries

    assert waits.call(lambda: work(patience._DEADLOCKS_MOST)) == patience._DEADLOCKS_MOST + 1
    tries = 0
    with pytest.raises(type(error)):
        waits.call(lambda: work(patience._DEADLOCKS_MOST + 1))
    assert tries == patience._DEADLOCKS_MOST + 1


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_what_is_no_outage_is_raised_at_once(error: Exception, waiter: Waiter) -> None:
    waits, said, _ = waiter
    waits.well()

    def work() -> str:
        raise error

    with pytest.raises(type(error)):
        waits.call(work)
    assert said == []


def test_a_wrong_address_is_told_at_once(waiter: Waiter) -> None:
    waits, said, _ = waiter

    def work() -> str:
        raise OUTAGES[0]

    with pytest.raises(psycopg.OperationalError):
        waits.call(work)
    assert said == []


def test_it_can_be_stopped_while_it_waits(waiter: Waiter) -> None:
    waits, _, stop = waiter
    waits.well()
    stop.set()

    def work() -> str:
        raise OUTAGES[0]

    with pytest.raises(psycopg.OperationalError):
        waits.call(work)
