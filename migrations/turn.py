"""Whose turn it is: one migration at a time, and none that makes everybody wait.

Stands apart because each lock here has an order that keeps a migration and a running worker from
waiting for each other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from views.ddl import MIGRATION_LOCK

_LOCK_NOT_AVAILABLE: Final = "55P03"
_DEADLOCK: Final = "40P01"
_NO_RIGHT: Final = "42501"


def wait_for_turn(connection: Connection, *, wait_s: float) -> None:
    """Hold the migration lock until the transaction ends. CommandError: not had within `wait_s`."""
    _set_lock_timeout(connection, wait_s)
    try:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
    except DBAPIError as error:
        if sqlstate(error) != _LOCK_NOT_AVAILABLE:
            raise
        raise CommandError(
            f"another migration of this database is still running after {wait_s:g} s; "
            "wait for it to end (-x wait_s=SECONDS waits longer). Nothing was changed."
        ) from error


def hold_writers(connection: Connection, builds: list[str], *, lock_timeout_s: float) -> None:
    """Keep every writer of the builds out until the transaction ends; readers go on.

    Workers lock their positions before anything else and redrives their build's row before that,
    so whoever is in the middle ends first and the rest have not locked anything yet.
    """
    _set_lock_timeout(connection, lock_timeout_s)
    if not builds:
        return
    connection.execute(text("LOCK TABLE ingest.builds IN EXCLUSIVE MODE"))
    for build in builds:
        connection.execute(text(f"LOCK TABLE {build}.positions IN SHARE ROW EXCLUSIVE MODE"))


@contextmanager
def in_sentences(*, lock_timeout_s: float) -> Iterator[None]:
    """Turn what an operator can mend into a sentence: a lock not had, a right not given."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) == _NO_RIGHT:
            raise CommandError(
                f"{error.orig}\nin {_shortened(error.statement)}\nMigrations run as the owner of "
                "the database, who may create roles (CREATEROLE) or finds the role "
                "viewkeeper_reader made. Nothing was changed."
            ) from error
        if sqlstate(error) not in (_LOCK_NOT_AVAILABLE, _DEADLOCK):
            raise
        raise CommandError(
            f"a lock was not had within {lock_timeout_s:g} s by {_shortened(error.statement)}\n"
            "Something else uses that table for long (pg_stat_activity shows what). Try again "
            "when it has ended, or wait longer with -x lock_timeout_s=SECONDS. "
            "Nothing was changed."
        ) from error


def _set_lock_timeout(connection: Connection, seconds: float) -> None:
    # Advisory locks keep to it too.
    limit = f"{max(1, round(seconds * 1000))}ms"
    connection.execute(text("SELECT set_config('lock_timeout', :limit, true)"), {"limit": limit})


def _shortened(statement: str | None) -> str:
    return " ".join((statement or "a statement").split())[:160]


def sqlstate(error: DBAPIError) -> str | None:
    """PostgreSQL's code for what went wrong."""
    return getattr(error.orig, "sqlstate", None)
