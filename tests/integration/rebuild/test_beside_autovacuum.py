"""Autovacuum looks at a table of a new build in the moment in which the build is made whole."""

import threading
from typing import Final

import psycopg
import pytest

from rebuild import run
from rebuild.report import Options
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually
from tests.integration.rebuild.parts import WAIT_S, Log, Watcher, value
from views import ddl
from views.model import View

_WAITING: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
)


def test_statistics_that_are_taken_while_rights_are_given_stop_no_rebuild(
    log: Log, shop: Database, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_policies, name = ddl.row_policies, "somebody's analyze"
    failures: list[psycopg.Error] = []

    def analyze() -> None:
        try:
            with psycopg.connect(shop.dsn, application_name=name, autocommit=True) as connection:
                connection.execute("ANALYZE build_2.payments")
        except psycopg.Error as error:
            failures.append(error)

    analyzing = threading.Thread(target=analyze, name="analyze")

    def meanwhile(view: View, build: str) -> list[str]:
        if view.name == "payments":
            analyzing.start()
            eventually(
                lambda: not analyzing.is_alive() or value(shop, _WAITING, name) == 1,
                WAIT_S,
                "statistics were taken, or wait for the build",
            )
        return row_policies(view, build)

    monkeypatch.setattr(ddl, "row_policies", meanwhile)
    report = run.rebuild(log.settings(shop), Options(), watcher, threading.Event())
    analyzing.join(WAIT_S)
    assert report.ok
    assert failures == []
