"""Statements that go straight to libpq: results, errors, what is prepared, and what is given up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from api import direct
from api.direct import DirectConnection
from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually

Work = Callable[[DirectConnection], Awaitable[None]]


@asynccontextmanager
async def connected(dsn: str, **options: Any) -> AsyncIterator[DirectConnection]:
    connection = await DirectConnection.connect(dsn, autocommit=True, **options)
    try:
        yield connection
    finally:
        await connection.close()


def run(shared_database: Database, work: Work, **options: Any) -> None:
    async def main() -> None:
        async with connected(shared_database.dsn, **options) as connection:
            await work(connection)

    asyncio.run(main())


async def names(connection: DirectConnection) -> list[str]:
    """The statements that the server keeps for this connection."""
    result = await connection.run("SELECT string_agg(name, ' ') FROM pg_prepared_statements")
    return (result.get_value(0, 0) or b"").decode().split()


def test_values_of_every_kind_arrive_and_come_back_as_text(shared_database: Database) -> None:
    async def work(connection: DirectConnection) -> None:
        for _ in range(3):  # as it comes, when it is prepared, and by its name
            result = await connection.run(
                "SELECT $1::text, $2::text[], $3::bool, $4::numeric, NULL",
                ["it's čaj", ["a", "b,c"], True, "1.50"],
            )
            values = [result.get_value(0, at) for at in range(5)]
            assert values == ["it's čaj".encode(), b'{a,"b,c"}', b"t", b"1.50", None]

    run(shared_database, work)


def test_the_same_text_with_values_of_other_types_is_another_statement(
    shared_database: Database,
) -> None:
    async def work(connection: DirectConnection) -> None:
        for value in ("7", 7, "7", 7, "7", 7):
            result = await connection.run("SELECT $1 + 1", [value])
            assert result.get_value(0, 0) == b"8"

    run(shared_database, work)


def test_what_comes_a_second_time_is_prepared_and_the_least_used_is_given_up(
    shared_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_MOST", 2)

    async def work(connection: DirectConnection) -> None:
        for text in ("SELECT 1", "SELECT 2", "SELECT 3"):
            await connection.run(text)
        assert await names(connection) == []
        for text in ("SELECT 2", "SELECT 3", "SELECT 2", "SELECT 4", "SELECT 4"):
            await connection.run(text)
        kept = await connection.run(
            "SELECT string_agg(statement, ', ' ORDER BY statement) FROM pg_prepared_statements"
        )
        assert kept.get_value(0, 0) == b"SELECT 2, SELECT 4"

    run(shared_database, work)


def test_behind_a_pooler_nothing_is_prepared(shared_database: Database) -> None:
    async def work(connection: DirectConnection) -> None:
        for _ in range(5):
            await connection.run("SELECT 1")
        assert await names(connection) == []

    run(shared_database, work, prepare_threshold=None)


def test_an_error_is_the_one_that_a_cursor_raises_and_the_next_statement_works(
    shared_database: Database,
) -> None:
    async def work(connection: DirectConnection) -> None:
        for _ in range(3):
            with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
                await connection.run("SELECT * FROM nowhere")
            with pytest.raises(psycopg.errors.DivisionByZero):
                await connection.run("SELECT 1 / $1::int", ["0"])
        assert (await connection.run("SELECT 1")).get_value(0, 0) == b"1"

    run(shared_database, work)


def test_a_large_question_and_a_large_result_pass(shared_database: Database) -> None:
    async def work(connection: DirectConnection) -> None:
        text = "x" * 8_000_000
        result = await connection.run("SELECT $1::text || 'y'", [text])
        assert result.get_value(0, 0) == text.encode() + b"y"

    run(shared_database, work)


def test_what_nobody_waits_for_any_more_ends_on_the_server(shared_database: Database) -> None:
    async def work(connection: DirectConnection) -> None:
        waiting = asyncio.create_task(connection.run("SELECT pg_sleep(60)"))
        async with connected(shared_database.dsn) as other:
            asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"

            async def sleeping() -> bool:
                return (await other.run(asked)).get_value(0, 0) == b"1"

            while not await sleeping():
                pass
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert (await connection.run("SELECT 1")).get_value(0, 0) == b"1"

    run(shared_database, work)


def test_a_connection_that_is_lost_says_so(shared_database: Database) -> None:
    async def work(connection: DirectConnection) -> None:
        waiting = asyncio.create_task(connection.run("SELECT pg_sleep(60)"))
        pid = connection.info.backend_pid
        async with connected(shared_database.dsn) as other:
            while (await other.run(f"SELECT pg_terminate_backend({pid})")).get_value(0, 0) != b"t":
                pass
        with pytest.raises(psycopg.OperationalError):
            await waiting
        with pytest.raises(psycopg.OperationalError):
            await connection.run("SELECT 1")
        eventually(lambda: connection.closed, 5, "it is known to be closed")

    run(shared_database, work)
