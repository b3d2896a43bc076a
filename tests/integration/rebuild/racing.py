"""Races on purpose: somebody acts just before a command keeps others out, or is seen to wait."""

import threading
from collections.abc import Callable
from typing import Any, Final

import psycopg
import pytest

from rebuild import repair
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.rebuild.parts import Log

WAIT_S: Final = 60.0
_WAITING: Final = "SELECT count(*) FROM pg_locks WHERE NOT granted"


def mend(log: Log, shop: Database, **which: str) -> repair.Repaired:
    """`rebuild --order ID`, or `--customer ID`."""
    return repair.repair(
        log.settings(shop), **which, stop=threading.Event(), say=lambda _line: None
    )


def once_before(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[Any], None]
) -> list[str]:
    """Let somebody act before the first call of a function, given its connection; tells that."""
    found, acted = getattr(owner, name), list[str]()

    def called(connection: psycopg.Connection[Any], *args: Any) -> Any:
        if not acted:
            acted.append(name)
            act(connection)
        return found(connection, *args)

    monkeypatch.setattr(owner, name, called)
    return acted


def wait_until_kept_out(connection: psycopg.Connection[Any]) -> None:
    """Return when somebody waits for what a transaction holds; asked on it, so it is never idle."""

    def waits() -> bool:
        row = connection.execute(_WAITING).fetchone()
        return row is not None and row[0] > 0

    eventually(waits, WAIT_S, "somebody waits for the repair")
