"""Live queries: updates a second to a crowd on one process, how late, and what a client costs.

Stands apart from `followers.py`, the crowd, which runs in a process of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from bench.followers import Job, Result, run
from bench.results import Table
from bench.serving import VIEWKEEPER, Running
from bench.stage import Database, Stage
from bench.stats import spread
from bench.throughput import Say
from dev.ports import LOOPBACK

ONE_QUERY: Final = "all the same query"
OWN_QUERY: Final = "each a query of its own"


@dataclass(frozen=True, slots=True)
class LiveSample:
    """One crowd on a fresh process."""

    what: str
    result: Result


def rounds(
    stage: Stage,
    database: Database,
    crowds: Sequence[int],
    *,
    count: int,
    seconds: float,
    say: Say,
) -> list[list[LiveSample]]:
    """Every crowd once per round. It moves a position of the database, which is of no use after."""
    ids = _orders(database, most=max(crowds))
    return [
        [
            _sample(stage, database, what, orders, seconds, say)
            for clients in crowds
            for what, orders in (
                (ONE_QUERY, ids[:1] * clients),
                (OWN_QUERY, ids[:clients]),
            )
        ]
        for _ in range(count)
    ]


def _orders(database: Database, *, most: int) -> tuple[str, ...]:
    query = "SELECT order_id FROM build_1.orders WHERE visible ORDER BY md5(order_id) LIMIT %s"
    with psycopg.connect(database.dsn) as connection:
        return tuple(row[0] for row in connection.execute(query, (most,)))


def _sample(
    stage: Stage,
    database: Database,
    what: str,
    orders: tuple[str, ...],
    seconds: float,
    say: Say,
) -> LiveSample:
    api = Running(stage, VIEWKEEPER, database)
    with api.child:
        api.wait_ready()
        result = run(
            Job(
                host=LOOPBACK,
                port=api.port,
                pid=api.child.pid,
                dsn=database.dsn,
                orders=orders,
                seconds=seconds,
            )
        )
    say(
        f"  {result.clients:,} clients, {what}: {result.updates_per_s:,.0f} updates/s,"
        f" p99 {result.p99_ms:.0f} ms"
    )
    return LiveSample(what, result)


def table(measured: Sequence[Sequence[LiveSample]]) -> Table:
    """What a crowd of live queries gets, and what each client costs."""
    rows = []
    kinds = dict.fromkeys((s.result.clients, s.what) for s in measured[0])
    for clients, what in kinds:
        found = [
            s.result
            for samples in measured
            for s in samples
            if (s.result.clients, s.what) == (clients, what)
        ]
        rows.append(
            (
                f"{clients:,}",
                what,
                spread([r.updates_per_s for r in found]).text(0),
                spread([r.p50_ms for r in found]).text(1),
                spread([r.p99_ms for r in found]).text(1),
                spread([r.cpu_us_per_update for r in found]).text(0),
                spread([r.grown_mb * 1024 / clients for r in found]).text(0),
                spread([r.grown_busy_mb * 1024 / clients for r in found]).text(0),
                spread([r.came_s for r in found]).text(1),
            )
        )
    return Table(
        "Live queries",
        "Clients on WebSockets to one API process, each following an order. Every change is told "
        "to all of them before the next one is made; the crowd's own work, in one Python process, "
        "is in the figures. Told: from the return of the commit until a client has the change. "
        "Memory: growth of the API's resident memory per client, once all had come and at the end.",
        (
            "clients",
            "what they follow",
            "updates/s, all clients",
            "told p50 ms",
            "told p99 ms",
            "API CPU µs an update",
            "kB a client",
            "kB a client later",
            "came in s",
        ),
        tuple(rows),
    )
