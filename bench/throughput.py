"""Ingest throughput: events per second from the start of a process to its last visible commit.

The end is not polled for: PostgreSQL keeps the time of every commit, and the newest one among the
rows of the result is the end. The time from which partitions were assigned is taken from the
broker's view of the consumer group, the same way for every contestant.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from confluent_kafka import KafkaException

from bench.contestants import Contestant, Run, check
from bench.eventlog import TOPICS, EventLog
from bench.stage import Database, Stage

RUN_TIMEOUT_S: Final = 1800.0
LOOK_EVERY_S: Final = 0.05

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One run of one contestant, in events per second and what it took."""

    contestant: str
    rate: float
    rate_assigned: float
    cpu_s: float
    database_cpu_s: float | None
    peak_rss_mb: float


class Assignment:
    """Watches, beside a run, for the moment at which its group has partitions."""

    def __init__(self, stage: Stage, group: str) -> None:
        self._admin = stage.kafka.admin()
        self._group = group
        self._stop = threading.Event()
        self.at: float | None = None
        self._thread = threading.Thread(target=self._watch, name="assignment", daemon=True)
        self._thread.start()

    def finish(self, *, otherwise: float) -> float:
        """When the group was first seen with partitions; `otherwise` if it never was."""
        self._stop.set()
        self._thread.join()
        return otherwise if self.at is None else self.at

    def _watch(self) -> None:
        while self.at is None and not self._stop.wait(LOOK_EVERY_S):
            if self._assigned():
                self.at = time_now()

    def _assigned(self) -> bool:
        try:
            group = self._admin.describe_consumer_groups([self._group])[self._group].result(5)
        except KafkaException:  # not known yet
            return False
        return any(member.assignment.topic_partitions for member in group.members)


def time_now() -> float:
    """The clock that the database stamps commits with: everything runs on one machine."""
    return time.time()


def last_commit_at(database: Database, schema: str) -> float:
    """When the newest row of the result was committed, in seconds since 1970."""
    newest = " UNION ALL ".join(
        f"SELECT max(pg_xact_commit_timestamp(xmin)) AS at FROM {schema}.{t}" for t in TOPICS
    )
    with psycopg.connect(database.dsn) as connection:
        found = connection.execute(
            f"SELECT extract(epoch FROM max(at))::float8 FROM ({newest}) AS newest"
        ).fetchone()
    if found is None or found[0] is None:
        raise RuntimeError(f"{database.name}: nothing was committed")
    return float(found[0])


def measure(stage: Stage, log: EventLog, contestant: Contestant) -> tuple[Sample, Database]:
    """One run into a fresh database, which is left as it is."""
    run = Run(stage, log, stage.fresh_database(contestant.name.split()[0].lower()))
    contestant.prepare(run)
    command, settings = contestant.command(run), contestant.settings(run)
    database_before_s = stage.database_cpu_s()
    with stage.child(contestant.name, command, environment=settings) as child:
        watch = Assignment(stage, run.group)
        usage = child.result(RUN_TIMEOUT_S)
        assigned_at = watch.finish(otherwise=child.started_at)
    database_s = stage.database_cpu_s() - database_before_s
    check(run.database, log, schema=contestant.schema, keeps_latest=contestant.keeps_latest)
    end_at = last_commit_at(run.database, contestant.schema)
    sample = Sample(
        contestant=contestant.name,
        rate=log.events / (end_at - child.started_at),
        rate_assigned=log.events / (end_at - assigned_at),
        cpu_s=usage.cpu_s,
        database_cpu_s=database_s,
        peak_rss_mb=usage.peak_rss_mb,
    )
    return sample, run.database


def one_round(
    stage: Stage, log: EventLog, contestants: Sequence[Contestant], *, number: int, say: Say
) -> list[Sample]:
    """Every contestant once; each round begins with another one."""
    shift = number % len(contestants)
    samples = []
    for contestant in [*contestants[shift:], *contestants[:shift]]:
        sample, database = measure(stage, log, contestant)
        stage.drop(database)
        samples.append(sample)
        say(f"  round {number + 1}: {contestant.name} {sample.rate:,.0f} events/s")
    return samples
