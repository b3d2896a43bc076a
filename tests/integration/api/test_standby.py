"""An API on a standby that applies late: it waits for its own data, or says how old they are."""

from collections.abc import Iterator
from typing import Final

import psycopg
import pytest

from dev.postgres import Postgres
from tests.fixtures.databases import DatabaseServer
from tests.integration.api.shop import Shop, insert, order, position, stock
from tests.integration.api.test_live import ORDER, change, connected, next_of, status_of, subscribe
from tests.integration.api.test_waiting import Pair, token_of, waiting_on

DELAY_S: Final = 2
"""Of each commit, by the standby: it has it, and does not show it."""
COMPLETE: Final = "UPDATE build_1.positions SET complete_as_of = clock_timestamp()"


@pytest.fixture(scope="module")
def late() -> Iterator[Pair]:
    """A primary, and a standby that applies commits as late as it is told to."""
    primary = Postgres()
    try:
        primary.start()
        databases = DatabaseServer(primary)
        database = databases.create(template=databases.template.name)
        stock(database.dsn, Shop([order("a")]))
        with psycopg.connect(database.dsn) as connection:
            insert(connection, "positions", [position("orders", 0, 1), position("payments", 0, 1)])
        standby = primary.standby(settings={"recovery_min_apply_delay": f"{DELAY_S}s"})
        try:
            yield Pair(primary, standby, database)
        finally:
            standby.close()
    finally:
        primary.close()


@pytest.mark.parametrize("listens", [True, False])
def test_at_least_waits_until_a_late_standby_has_applied_it(late: Pair, *, listens: bool) -> None:
    offset = 11 if listens else 12
    given = {"notify_database_url": late.database.api_dsn} if listens else {}
    with waiting_on(late.standby_dsn, **given) as api:
        if listens:
            api.listens()
        change(late.database.dsn, offset, None)
        (error,) = api.ask(atLeast=f"orders:0:{offset}", timeoutMs=0)["errors"]
        assert error["extensions"]["code"] == "STALE"
        token = token_of(api.ask(atLeast=f"orders:0:{offset}", timeoutMs=10_000))
        assert token.startswith(f"orders:0:{offset},")


def test_a_late_standby_says_how_old_its_answers_are(late: Pair) -> None:
    with waiting_on(late.standby_dsn) as api:
        with psycopg.connect(late.database.dsn) as connection:
            connection.execute(COMPLETE)
        late.caught_up()
        assert "errors" not in api.ask(maxStalenessMs=3_600_000)
        # What it shows was complete before it applied it, and that was so long ago.
        answer = api.ask(maxStalenessMs=(DELAY_S - 1) * 1000)
        (error,) = answer["errors"]
        assert error["extensions"]["code"] == "STALE"
        assert error["extensions"]["lagMs"] >= DELAY_S * 1000


def test_a_live_query_on_a_late_standby_follows(late: Pair) -> None:
    with (
        waiting_on(late.standby_dsn, notify_database_url=late.database.api_dsn) as api,
        connected(api.client) as socket,
    ):
        api.listens()
        subscribe(socket, ORDER)
        status = status_of(next_of(socket))
        for offset, changed in enumerate(("CONFIRMED", "SHIPPED"), start=20):
            assert changed != status
            change(late.database.dsn, offset, changed)
            payload = next_of(socket)
            assert status_of(payload) == changed
            position = payload["extensions"]["consistency"]["position"]
            assert position.startswith(f"orders:0:{offset},")
