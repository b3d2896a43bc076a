"""Rebuild: how fast alone, and what readers and live ingest notice of one.

*Alone*: a live worker reads the whole backlog, then a rebuild makes the same views from zero and
swaps them in; both from the start of their process. *Beside*: with live ingest at a steady rate and
sessions that look through each of their answers, a rebuild, a swap, a rollback, and at the end a
proof of every row.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import psycopg

from bench.child import Child
from bench.contestants import WORKER, Run
from bench.eventlog import EventLog
from bench.serving import VIEWKEEPER, Running
from bench.sessions import Job
from bench.stage import Database, Stage, script
from bench.stats import percentile
from bench.throughput import RUN_TIMEOUT_S, Sample, Say, measure
from dev.ports import LOOPBACK

REBUILD: Final = "rebuild"
SESSIONS: Final = 10
SAMPLED: Final = 500
CATCH_UP_S: Final = 120.0
LOOK_EVERY_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What goes on beside a rebuild: events and queries a second, and how long without one."""

    events_per_s: int = 1_000
    queries_per_s: float = 50.0
    idle_s: float = 30.0
    after_s: float = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideSample:
    """One rebuild, swap and rollback under load."""

    events: int
    seconds: float
    rate: float
    live_rate: float
    queries: int
    failed: int
    mixed: int
    went_back: int
    builds_seen: int
    p50_idle_ms: float
    p99_idle_ms: float
    p50_ms: float
    p99_ms: float
    p99_swaps_ms: float
    most_lag_ms: int
    without_lag: int
    held_ms: float
    rollback_held_ms: float
    events_since_proof: int
    rows_proved: int
    problems: tuple[str, ...]


def alone(stage: Stage, log: EventLog, *, say: Say) -> list[Sample]:
    """The live worker and the rebuild in turn, one round, on a database of their own."""
    worker, database = measure(stage, log, WORKER)
    say(f"  {worker.contestant} {worker.rate:,.0f} events/s")
    before_s = stage.database_cpu_s()
    with _command(stage, database, "rebuild", "--json") as child:
        usage = child.result(RUN_TIMEOUT_S)
        seconds = time.time() - child.started_at
        report = _answer(child)
    rebuilt = Sample(
        contestant=REBUILD,
        rate=log.events / seconds,
        rate_assigned=log.events / report["seconds"]["bulk"],
        cpu_s=usage.cpu_s,
        database_cpu_s=stage.database_cpu_s() - before_s,
        peak_rss_mb=usage.peak_rss_mb,
    )
    if not (report["ok"] and report["swapped"]):
        raise RuntimeError(f"the rebuild was not swapped in: {report}")
    stages = ", ".join(f"{name} {spent} s" for name, spent in report["seconds"].items())
    say(f"  {REBUILD} {rebuilt.rate:,.0f} events/s ({stages})")
    stage.drop(database)
    return [worker, rebuilt]


def beside(stage: Stage, log: EventLog, load: Load, *, say: Say) -> BesideSample:
    """One rebuild under load on a database that holds the whole log."""
    _, database = measure(stage, log, WORKER)
    with ExitStack() as stack:
        _start_worker(stack, stage, log, database)
        sessions = _start_readers(stack, stage, database, load)
        paced = _start_events(stack, stage, load)
        threading.Event().wait(load.after_s)
        moments = [time.time()]
        threading.Event().wait(load.idle_s)
        moments.append(time.time())
        before = _held(database)
        report = _run(stage, database, "rebuild", "--json")
        moments.append(time.time())
        say(f"  rebuilt and swapped in {moments[2] - moments[1]:.0f} s: {report['seconds']}")
        say(f"  {report['swapped']}")
        threading.Event().wait(load.after_s)
        # Not at the swap itself, where the worker has just come over and what came meanwhile waits.
        live_rate = (_held(database) - before) / (time.time() - moments[1])
        back = _run(stage, database, "swap", "--rollback", "--json")
        say(f"  rolled back: {back['swapped']}")
        threading.Event().wait(load.after_s)
        paced.stop()
        sessions.stop()
        answers = [json.loads(line) for line in _text(sessions).splitlines()]
        _wait_until_caught_up(stage, database)
        proof = _run(stage, database, "verify", "--json")
    return _sample(moments, live_rate, answers, (report, back, proof))


def _sample(
    moments: Sequence[float],
    live_rate: float,
    answers: list[dict[str, Any]],
    reports: tuple[dict[str, Any], dict[str, Any], dict[str, Any]],
) -> BesideSample:
    report, back, proof = reports
    counted = [a for a in answers if a["at"] >= moments[0]]
    idle = [a["ms"] for a in counted if a["at"] < moments[1]]
    meanwhile = [a["ms"] for a in counted if moments[1] <= a["at"] < moments[2]]
    after = [a["ms"] for a in counted if a["at"] >= moments[2] - 2.0]
    problems = [a["problem"] for a in counted if a["problem"]]
    answered = [a for a in counted if a["build"]]
    lags = [a["lag_ms"] for a in answered if a["lag_ms"] is not None]
    seconds = moments[2] - moments[1]
    return BesideSample(
        events=report["events"],
        seconds=seconds,
        rate=report["events"] / seconds,
        live_rate=live_rate,
        queries=len(counted),
        failed=sum(p.startswith("failed") for p in problems),
        mixed=sum(p.startswith("mixed") for p in problems),
        went_back=sum(p.startswith("went back") for p in problems),
        builds_seen=len({a["build"] for a in answered}),
        p50_idle_ms=percentile(idle, 0.5),
        p99_idle_ms=percentile(idle, 0.99),
        p50_ms=percentile(meanwhile, 0.5),
        p99_ms=percentile(meanwhile, 0.99),
        p99_swaps_ms=percentile(after, 0.99),
        most_lag_ms=max(lags, default=0),
        without_lag=len(answered) - len(lags),
        held_ms=report["swapped"]["held_s"] * 1000,
        rollback_held_ms=back["swapped"]["held_s"] * 1000,
        events_since_proof=report["swapped"]["events_since_proof"],
        rows_proved=sum(view["rows"] for view in proof["views"]) if proof["equal"] else 0,
        problems=tuple(dict.fromkeys(problem[:300] for problem in problems))[:5],
    )


def _start_worker(stack: ExitStack, stage: Stage, log: EventLog, database: Database) -> None:
    settings = WORKER.settings(Run(stage, log, database))
    stack.enter_context(
        stage.child("live worker", [str(script("viewkeeper")), "ingest"], environment=settings)
    )


def _start_readers(stack: ExitStack, stage: Stage, database: Database, load: Load) -> Child:
    api = Running(stage, VIEWKEEPER, database)
    stack.callback(api.child.stop)
    api.wait_ready()
    job = Job(
        host=LOOPBACK,
        port=api.port,
        rate=load.queries_per_s,
        sessions=SESSIONS,
        things=_things(database),
    )
    file = stage.logs / "sessions.json"
    file.write_text(json.dumps(asdict(job)))
    return stack.enter_context(
        stage.child("sessions", [sys.executable, "-m", "bench.sessions", str(file)])
    )


def _start_events(stack: ExitStack, stage: Stage, load: Load) -> Child:
    command = [
        *(sys.executable, "-m", "bench.paced", "--prefix", "live"),
        *("--bootstrap-servers", stage.kafka.bootstrap_servers),
        *("--rate", str(load.events_per_s)),
        *("--orders-id", str(stage.schema_ids["orders"])),
        *("--payments-id", str(stage.schema_ids["payments"])),
    ]
    return stack.enter_context(stage.child("live events", command))


def _things(database: Database) -> tuple[tuple[str, str, str], ...]:
    with psycopg.connect(database.dsn) as connection:
        rows = connection.execute(
            "SELECT order_id, customer_id, currency FROM build_1.orders WHERE visible"
            " ORDER BY md5(order_id) LIMIT %s",
            (SAMPLED,),
        ).fetchall()
    return tuple((order, customer, currency) for order, customer, currency in rows)


def _held(database: Database) -> int:
    """How many offsets the live build holds."""
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute("SELECT name FROM ingest.builds WHERE state = 'live'").fetchone()
        assert row is not None
        held = connection.execute(f"SELECT sum(next_offset)::bigint FROM {row[0]}.positions")
        total = held.fetchone()
        assert total is not None
        return int(total[0])


@contextmanager
def _command(stage: Stage, database: Database, *arguments: str) -> Iterator[Child]:
    name = f"viewkeeper {arguments[0]} {time.monotonic_ns()}"
    with stage.child(
        name,
        [str(script("viewkeeper")), *arguments],
        environment={"VIEWKEEPER_DATABASE_URL": database.dsn},
    ) as child:
        yield child


def _run(stage: Stage, database: Database, *arguments: str) -> dict[str, Any]:
    with _command(stage, database, *arguments) as child:
        child.result(RUN_TIMEOUT_S)
        return _answer(child)


def _answer(child: Child) -> dict[str, Any]:
    """The JSON at the end of a command's output, behind the lines for people."""
    text = "\n" + _text(child)
    found: dict[str, Any] = json.loads(text[text.index("\n{\n") :])
    return found


def _text(child: Child) -> str:
    return child.log_path.read_text()


def _wait_until_caught_up(stage: Stage, database: Database) -> None:
    deadline = time.monotonic() + CATCH_UP_S
    while not _run(stage, database, "status", "--json")["caught_up"]:
        if time.monotonic() > deadline:
            raise RuntimeError("the live worker has not caught up with the events")
        threading.Event().wait(LOOK_EVERY_S)
