"""`make bench`: run the benchmarks, print their tables, write `bench/RESULTS.md`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench import (
    contestants,
    debezium,
    freshness,
    live,
    peers,
    poison,
    rebuild,
    report,
    results,
    serving,
    throughput,
)
from bench.eventlog import EventLog, produce
from bench.stage import Database, Stage

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
PARTS: Final = ("ingest", "serving", "freshness", "live", "rebuild", "poison")
SEED: Final = 20_260_101
PARTITIONS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything."""

    events: int
    rounds: int
    serving_s: float
    rates: tuple[int, ...]
    probes: int
    crowds: tuple[int, ...]
    load: rebuild.Load
    full: bool


QUICK: Final = Plan(
    events=20_000,
    rounds=1,
    serving_s=1.0,
    rates=(100,),
    probes=20,
    crowds=(20,),
    load=rebuild.Load(events_per_s=200, queries_per_s=20, idle_s=5.0, after_s=3.0),
    full=False,
)
USUAL: Final = Plan(
    events=200_000,
    rounds=3,
    serving_s=4.0,
    rates=(100, 1000),
    probes=150,
    crowds=(100, 1000),
    load=rebuild.Load(),
    full=False,
)
FULL: Final = Plan(
    events=1_000_000,
    rounds=3,
    serving_s=8.0,
    rates=(100, 1000, 5000),
    probes=400,
    crowds=(100, 1000),
    load=rebuild.Load(idle_s=60.0),
    full=True,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run the parts, report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="1,000,000 events, Debezium, 5,000/s")
    size.add_argument("--quick", action="store_true", help="one small round, nothing is written")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be repeated")
    parser.add_argument("--events", type=int, help="another number of events")
    parser.add_argument("--debezium", action="store_true", help="Debezium without --full")
    parser.add_argument("--rounds", type=int, help="another number of rounds")
    parser.add_argument("--report", type=Path, default=RESULTS, help="where the tables go")
    options = parser.parse_args(arguments)
    plan = FULL if options.full else QUICK if options.quick else USUAL
    plan = replace(plan, rounds=options.rounds or plan.rounds)
    benchmark = Benchmark(
        plan,
        events=options.events or plan.events,
        parts=tuple(options.only or PARTS),
        with_debezium=plan.full or options.debezium,
    )
    tables, conditions = benchmark.run(), benchmark.conditions
    print("\n" + results.document(tables, conditions))
    if not options.quick:
        before = options.report.read_text("utf-8") if options.report.exists() else ""
        options.report.write_text(results.document(tables, conditions, before=before), "utf-8")


class Benchmark:
    """One run: the servers, the log, the parts in turn, the document."""

    def __init__(
        self, plan: Plan, *, events: int, parts: tuple[str, ...], with_debezium: bool
    ) -> None:
        self._plan = plan
        self._events = events
        self._parts = parts
        self._with_debezium = with_debezium

    @property
    def conditions(self) -> results.Conditions:
        """Under which it runs."""
        return results.Conditions(
            command=" ".join(["python -m bench", *sys.argv[1:]]),
            events=self._events,
            partitions=PARTITIONS,
            rounds=self._plan.rounds,
        )

    def run(self) -> list[results.Table]:
        """Everything that was asked for."""
        with Stage(partitions=PARTITIONS) as stage:
            if {"ingest", "serving"} & set(self._parts):
                peers.prepare(stage)
            say(f"writing {self._events:,} events")
            log = produce(
                stage.kafka.bootstrap_servers, stage.schema_ids, events=self._events, seed=SEED
            )
            say(f"  {log.size_mb:.0f} MB in {len(log.next_offsets)} partitions")
            tables = [
                *(self._ingest(stage, log) if "ingest" in self._parts else ()),
                *self._read(stage, log),
                *(self._rebuild(stage, log) if "rebuild" in self._parts else ()),
            ]
        return [*tables, *(self._poison() if "poison" in self._parts else ())]

    def _ingest(self, stage: Stage, log: EventLog) -> list[results.Table]:
        say("ingest throughput")
        side_by_side = (contestants.WORKER, contestants.FLOOR, contestants.QUIX)
        measured = []
        for number in range(self._plan.rounds):
            samples = throughput.one_round(stage, log, side_by_side, number=number, say=say)
            if self._with_debezium:
                samples += debezium.measure(stage, log, say=say)
            measured.append(samples)
        return [report.ingest_table(measured, self.conditions)]

    def _read(self, stage: Stage, log: EventLog) -> list[results.Table]:
        """The parts that read one database, which the last of them leaves unfit for another."""
        if not {"serving", "freshness", "live"} & set(self._parts):
            return []
        database = self._filled(stage, log)
        tables = []
        if "serving" in self._parts:
            tables.append(report.serving_table(self._serve(stage, database)))
        if "freshness" in self._parts:
            tables.append(report.freshness_table(self._freshen(stage, log, database)))
        if "live" in self._parts:
            tables.append(live.table(self._follow(stage, database)))
        return tables

    def _rebuild(self, stage: Stage, log: EventLog) -> list[results.Table]:
        say("rebuild")
        alone = [rebuild.alone(stage, log, say=say) for _ in range(self._plan.rounds)]
        say("rebuild beside live load")
        beside = rebuild.beside(stage, log, self._plan.load, say=say)
        return [
            report.rebuild_table(alone, self.conditions),
            report.beside_table(beside, self._plan.load),
        ]

    def _poison(self) -> list[results.Table]:
        say("poison")
        measured = poison.rounds(
            events=self._events,
            seed=SEED,
            partitions=PARTITIONS,
            count=self._plan.rounds,
            say=say,
        )
        return [report.poison_table(measured, self.conditions)]

    def _filled(self, stage: Stage, log: EventLog) -> Database:
        """A database with the whole log in it, for readers."""
        say("filling the database that is read")
        _, database = throughput.measure(stage, log, contestants.WORKER)
        return database

    def _serve(self, stage: Stage, database: Database) -> list[list[serving.ServingSample]]:
        say("serving")
        return serving.rounds(
            stage,
            database,
            serving.services(),
            serving.shapes(database, full=self._plan.full),
            count=self._plan.rounds,
            seconds=self._plan.serving_s,
            say=say,
        )

    def _freshen(
        self, stage: Stage, log: EventLog, database: Database
    ) -> list[list[freshness.FreshnessSample]]:
        say("freshness")
        return freshness.rounds(
            stage,
            log,
            database,
            rates=self._plan.rates,
            probes=self._plan.probes,
            count=self._plan.rounds,
            say=say,
        )

    def _follow(self, stage: Stage, database: Database) -> list[list[live.LiveSample]]:
        say("live queries")
        return live.rounds(
            stage,
            database,
            self._plan.crowds,
            count=self._plan.rounds,
            seconds=self._plan.serving_s,
            say=say,
        )


def say(line: str) -> None:
    """Progress, at once."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
