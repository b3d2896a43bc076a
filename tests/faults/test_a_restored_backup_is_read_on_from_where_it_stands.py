"""PostgreSQL is restored from an older backup under running workers: nothing is to be done."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from dev.postgres import Postgres
from dev.stack import OWNER
from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground
from tests.fixtures.waiting import PATIENCE_S, eventually

WENT_BACK: Final = "position gone back by a restored backup"
_S: Final = PATIENCE_S


def _back_up(server: Postgres, name: str) -> Path:
    backup = server.home / f"{name}.backup"
    server.tool("pg_dump", "--format=custom", "--file", str(backup), "--dbname", server.dsn(name))
    return backup


def _restore_beside(server: Postgres, backup: Path, name: str) -> None:
    server.create_database(name, owner=OWNER)
    server.tool("pg_restore", "--dbname", server.dsn(name), str(backup))


def _put_in_place(server: Postgres, restored: str, name: str) -> None:
    """What docs/operating.md tells: nobody may see a database that is restored half-way."""
    names = {"name": sql.Identifier(name), "restored": sql.Identifier(restored)}
    server.execute(sql.SQL("ALTER DATABASE {name} ALLOW_CONNECTIONS false").format(**names))
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}"
    rename = sql.SQL("ALTER DATABASE {name} RENAME TO {to}")

    def renamed() -> bool:
        server.execute(sql.SQL(end).format(sql.Literal(name)))
        try:
            server.execute(rename.format(**names, to=sql.Identifier(f"{name}_before")))
        except psycopg.errors.ObjectInUse:
            return False
        return True

    eventually(renamed, _S, "nobody uses the database")
    server.execute(rename.format(name=names["restored"], to=names["name"]))


def _positions(dsn: str) -> dict[tuple[str, int], int]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT topic, partition, next_offset FROM build_1.positions"
        ).fetchall()
    return {(topic, partition): offset for topic, partition, offset in rows}


def test_what_came_after_a_restored_backup_is_applied_again(field: Field, ground: Ground) -> None:
    server, name = field.stack.postgres, ground.place.dsn.rpartition("/")[2]
    trickle = ground.trickle(ground.traffic(3_000, seed=51), per_s=150)
    ground.wait_for_share(ground.worker(), ground.worker())
    ground.wait_for_progress(100)
    backup = _back_up(server, name)
    ground.wait_for_progress(300)
    _restore_beside(server, backup, "restored")
    then, now = _positions(server.dsn("restored")), ground.positions()
    behind = [place for place, offset in now.items() if then[place] < offset]
    assert sum(now[place] - then[place] for place in behind) >= 250
    _put_in_place(server, "restored", name)
    ground.bites.bit(WENT_BACK, len(behind))
    trickle.stop()
    ground.must_be_right()
    assert all(ground.positions()[place] >= offset for place, offset in now.items())
