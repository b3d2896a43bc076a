"""`atLeast` waits for the events it names: woken on a primary, in time on a standby, never late."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.app import create_app
from api.waiting import Movements
from dev.postgres import Postgres
from tests.fixtures.databases import Database, DatabaseServer
from tests.fixtures.waiting import eventually
from tests.integration.api.conftest import settings
from tests.integration.api.shop import insert, position

QUERY = "{ position { token } }"
ORDERS = "{ orders(first: 5) { nodes { orderId } } }"
MOVE = "UPDATE build_1.positions SET next_offset = %s, end_offset = %s WHERE topic = 'orders'"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A running API, asked from threads."""

    client: TestClient
    threads: ThreadPoolExecutor
    statements: list[str]

    @property
    def movements(self) -> Movements:
        app = self.client.app
        assert isinstance(app, Starlette)
        movements: Movements = app.state.service.movements
        return movements

    def ask(self, query: str = QUERY, **consistency: Any) -> dict[str, Any]:
        body = {"query": query, "extensions": {"consistency": consistency}}
        answer: dict[str, Any] = self.client.post("/graphql", json=body).json()
        return answer

    def ask_aside(self, query: str = QUERY, **consistency: Any) -> "Future[dict[str, Any]]":
        """Ask in a thread; returns as soon as the API waits for events."""
        already = self.movements.waiting
        asked = self.threads.submit(self.ask, query, **consistency)
        eventually(lambda: self.movements.waiting > already or asked.done(), 10, "it waits")
        return asked

    def listens(self) -> None:
        """Return when notifications arrive."""
        eventually(lambda: self.movements.listening, 10, "the API listens")


@contextmanager
def waiting_on(dsn: str, **given: Any) -> Iterator[Waiting]:
    """An API that reads there."""
    statements: list[str] = []
    app = create_app(settings(dsn, **given), observe=statements.append)
    with TestClient(app) as client, ThreadPoolExecutor(8) as threads:
        yield Waiting(client, threads, statements)


@pytest.fixture
def api(database: Database) -> Iterator[Waiting]:
    """The API on the test's own database, at offset 10 of `orders`."""
    stock_positions(database.dsn)
    with waiting_on(database.api_dsn) as waiting:
        waiting.listens()
        yield waiting


def stock_positions(dsn: str) -> None:
    """Where every test begins."""
    with psycopg.connect(dsn) as connection:
        insert(connection, "positions", [position("orders", 0, 11), position("payments", 0, 1)])


def move(dsn: str, offset: int, *, told: bool = True, payload: str | None = None) -> None:
    """What the worker does: the position, and word of it, in one transaction."""
    with psycopg.connect(dsn) as connection:
        connection.execute(MOVE, (offset + 1, offset + 1))
        if told:
            text = payload or f"build_1 orders:0:{offset}"
            connection.execute("SELECT pg_notify('viewkeeper', %s)", (text,))


def token_of(answer: dict[str, Any]) -> str:
    """The position of an answer with data."""
    assert "errors" not in answer, answer
    token: str = answer["data"]["position"]["token"]
    assert answer["extensions"]["consistency"]["position"] == token
    return token


def test_a_waiting_operation_is_woken_by_the_commit_it_waits_for(
    api: Waiting, database: Database
) -> None:
    delays_ms = []
    for offset in range(11, 22):
        asked = api.ask_aside(atLeast=f"orders:0:{offset}", timeoutMs=10_000)
        move(database.dsn, offset)
        committed_at = time.monotonic()
        assert token_of(asked.result(10)).startswith(f"orders:0:{offset},")
        delays_ms.append((time.monotonic() - committed_at) * 1000)
    # Looked for once a second, the median would be hundreds: it was woken.
    assert sorted(delays_ms)[len(delays_ms) // 2] < 100, delays_ms


def test_a_wait_costs_the_query_once(api: Waiting, database: Database) -> None:
    asked = api.ask_aside(ORDERS, atLeast="orders:0:12", timeoutMs=10_000)
    for offset in (11, 12):
        move(database.dsn, offset)
    assert "errors" not in asked.result(10)
    assert _read_orders(api) == 1
    stale = api.ask(ORDERS, atLeast="orders:0:13", timeoutMs=50)
    assert stale["errors"][0]["extensions"]["code"] == "STALE"
    assert _read_orders(api) == 1, "an answer that cannot be given is not looked for"


def test_what_an_answer_has_contained_is_asked_for_without_a_look(api: Waiting) -> None:
    token = token_of(api.ask())
    api.statements.clear()
    assert "errors" not in api.ask(ORDERS, atLeast=token)
    assert len(api.statements) == _read_orders(api) == 1


def _read_orders(api: Waiting) -> int:
    return sum("order_id" in text for text in api.statements)


def test_it_sleeps_on_while_other_events_come(api: Waiting, database: Database) -> None:
    asked = api.ask_aside(atLeast="orders:0:20,payments:0:0", timeoutMs=10_000)
    for offset in (12, 19):
        move(database.dsn, offset)
    assert not asked.done()
    move(database.dsn, 20)
    assert token_of(asked.result(10)).startswith("orders:0:20,")


@pytest.mark.parametrize("payload", ["build_1", "something else entirely"])
def test_a_notification_without_positions_wakes_too(
    api: Waiting, database: Database, payload: str
) -> None:
    asked = api.ask_aside(atLeast="orders:0:11", timeoutMs=10_000)
    move(database.dsn, 11, payload=payload)
    token_of(asked.result(10))


def test_a_lost_notification_costs_a_slow_beat_and_no_more(
    api: Waiting, database: Database
) -> None:
    asked = api.ask_aside(atLeast="orders:0:11", timeoutMs=10_000)
    move(database.dsn, 11, told=False)
    began_at = time.monotonic()
    token_of(asked.result(10))
    assert time.monotonic() - began_at < 3


def test_a_lost_listener_listens_again_and_nobody_waits_in_vain(
    api: Waiting, database: Database
) -> None:
    asked = api.ask_aside(atLeast="orders:0:11", timeoutMs=10_000)
    with psycopg.connect(database.api_dsn) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'viewkeeper-api-listen' AND datname = current_database()"
        )
    move(database.dsn, 11)
    token_of(asked.result(10))
    api.listens()
    later = api.ask_aside(atLeast="orders:0:12", timeoutMs=10_000)
    move(database.dsn, 12)
    token_of(later.result(10))


def test_the_time_out_is_kept_and_says_what_is_there(api: Waiting) -> None:
    here = token_of(api.ask())
    for demand in ("orders:0:11", "orders:7:0"):
        began_at = time.monotonic()
        answer = api.ask(atLeast=demand, timeoutMs=200)
        assert 0.2 <= time.monotonic() - began_at < 1.5
        assert "data" not in answer
        (error,) = answer["errors"]
        assert error["extensions"] == {
            "code": "STALE",
            "position": here,
            "lagMs": None,
            "retryAfterMs": 1000,
        }
    assert api.movements.waiting == 0


def test_staleness_never_waits(api: Waiting, database: Database) -> None:
    began_at = time.monotonic()
    answer = api.ask(maxStalenessMs=50, timeoutMs=10_000)
    assert answer["errors"][0]["extensions"]["code"] == "STALE"
    assert time.monotonic() - began_at < 2
    with psycopg.connect(database.dsn) as connection:
        connection.execute("UPDATE build_1.positions SET complete_as_of = clock_timestamp()")
    token_of(api.ask(maxStalenessMs=60_000))


@pytest.mark.parametrize("timeout_ms", [-1, 10_001, 10**12])
def test_a_time_out_out_of_bounds_is_refused(api: Waiting, timeout_ms: int) -> None:
    (error,) = api.ask(atLeast="orders:0:1", timeoutMs=timeout_ms)["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


def test_another_generation_is_refused_at_once(api: Waiting) -> None:
    began_at = time.monotonic()
    (error,) = api.ask(atLeast="orders:0:99@00000000", timeoutMs=10_000)["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert time.monotonic() - began_at < 2


def test_headers_say_the_same_in_and_out(api: Waiting) -> None:
    def post(**headers: str) -> Any:
        named = {f"Viewkeeper-{name.replace('_', '-')}": text for name, text in headers.items()}
        return api.client.post("/graphql", json={"query": QUERY}, headers=named)

    there = post(At_Least="orders:0:10")
    assert there.headers["viewkeeper-position"] == there.json()["data"]["position"]["token"]
    stale = post(At_Least="orders:0:11", Timeout_Ms="0")
    assert stale.json()["errors"][0]["extensions"]["code"] == "STALE"
    assert stale.headers["viewkeeper-position"] == there.headers["viewkeeper-position"]
    assert stale.headers["retry-after"] == "1"


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary and its standby, each with the same migrated database."""

    primary: Postgres
    standby: Postgres
    database: Database

    @property
    def standby_dsn(self) -> str:
        """The reader's login on the standby."""
        return self.database.api_dsn.replace(f":{self.primary.port}/", f":{self.standby.port}/")

    def replay(self, word: str) -> None:
        """`pause` or `resume` what the standby applies."""
        with psycopg.connect(self.standby.dsn(), autocommit=True) as connection:
            connection.execute(f"SELECT pg_wal_replay_{word}()".encode())

    def caught_up(self) -> None:
        """Return when the standby has everything."""
        with psycopg.connect(self.primary.dsn(), autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        reached = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        with psycopg.connect(self.standby.dsn(), autocommit=True) as connection:
            eventually(
                lambda: (connection.execute(reached, row).fetchone() or [0])[0], 20, "replay"
            )


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Streaming replication between two real servers."""
    primary = Postgres(settings={"wal_level": "replica"})
    try:
        primary.start()
        databases = DatabaseServer(primary)
        database = databases.create(template=databases.template.name)
        stock_positions(database.dsn)
        standby = primary.standby()
        try:
            yield Pair(primary, standby, database)
        finally:
            standby.close()
    finally:
        primary.close()


@pytest.mark.parametrize("listens", [True, False])
def test_a_standby_waits_for_its_own_data_whether_or_not_it_hears_of_the_primary(
    pair: Pair, *, listens: bool
) -> None:
    move(pair.database.dsn, 50, told=False)
    pair.caught_up()
    given = {"notify_database_url": pair.database.api_dsn} if listens else {}
    with waiting_on(pair.standby_dsn, **given) as api:
        if listens:
            api.listens()
        token_of(api.ask(atLeast="orders:0:50"))
        pair.replay("pause")
        try:
            move(pair.database.dsn, 51)
            (error,) = api.ask(atLeast="orders:0:51", timeoutMs=300)["errors"]
            assert error["extensions"]["code"] == "STALE"
            assert error["extensions"]["position"].startswith("orders:0:50,")
            asked = api.ask_aside(atLeast="orders:0:51", timeoutMs=10_000)
            move(pair.database.dsn, 52)
        finally:
            pair.replay("resume")
        assert token_of(asked.result(10)) >= "orders:0:51"
        assert api.movements.listening is listens


def test_a_session_that_says_what_it_saw_never_goes_back_on_any_replica(pair: Pair) -> None:
    with (
        waiting_on(pair.database.api_dsn) as primary,
        waiting_on(pair.standby_dsn, notify_database_url=pair.database.api_dsn) as standby,
    ):
        seen: list[int] = []
        token = ""
        for turn in range(60):
            move(pair.database.dsn, 100 + turn)
            if turn % 20 == 0:
                pair.replay("pause")
            replica = standby if turn % 2 else primary
            asked = replica.threads.submit(replica.ask, atLeast=token, timeoutMs=10_000)
            if turn % 20 == 10:
                pair.replay("resume")
            if turn % 20 < 10 and replica is standby:
                eventually(
                    lambda: replica.movements.waiting or asked.done(),  # noqa: B023 - now
                    10,
                    "it waits",
                )
                pair.replay("resume")
            token = token_of(asked.result(15))
            seen.append(int(token.split(",")[0].split(":")[2].split("@")[0]))
        assert seen == sorted(seen)
        assert seen[-1] >= 158
