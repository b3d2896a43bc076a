"""What bad events cost: the worker on a log with 1 % poison of every shape, beside a clean one.

Both logs hold the same good events, on servers of their own that are used in turn.
"""

import random
from typing import Final

import psycopg

from bench import contestants, throughput
from bench.eventlog import Delivery, Encoder, EventLog, Expected, Shop, produce
from bench.stage import Stage
from bench.throughput import Sample, Say
from tests.fixtures.content import Writer
from tests.fixtures.contracts import register
from tests.fixtures.poison import SHAPES, Poisoner

CLEAN: Final = "clean log"
POISONED: Final = "1 % poison"
_EVERY: Final = 100
_GOOD_AT_THE_END: Final = 500


def rounds(*, events: int, seed: int, partitions: int, count: int, say: Say) -> list[list[Sample]]:
    """Each log once a round, by the worker with everything on."""
    with Stage(partitions=partitions) as clean, Stage(partitions=partitions) as poisoned:
        log = produce(clean.kafka.bootstrap_servers, clean.schema_ids, events=events, seed=seed)
        spoiled, dead = _produce(poisoned, events=events, seed=seed)
        measured = []
        for number in range(count):
            turn = [
                _measure(clean, log, CLEAN, dead=0),
                _measure(poisoned, spoiled, POISONED, dead=dead),
            ]
            for sample in turn:
                say(f"  round {number + 1}: {sample.contestant} {sample.rate:,.0f} events/s")
            measured.append(turn)
        return measured


def _measure(stage: Stage, log: EventLog, name: str, *, dead: int) -> Sample:
    sample, database = throughput.measure(stage, log, contestants.WORKER)
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute("SELECT count(*) FROM ingest.dead_letters").fetchone()
    if row != (dead,):
        raise RuntimeError(f"{database.name} has {row} dead letters; it must be {dead}")
    stage.drop(database)
    return Sample(
        contestant=name,
        rate=sample.rate,
        rate_assigned=sample.rate_assigned,
        cpu_s=sample.cpu_s,
        database_cpu_s=sample.database_cpu_s,
        peak_rss_mb=sample.peak_rss_mb,
    )


def _produce(stage: Stage, *, events: int, seed: int) -> tuple[EventLog, int]:
    """The log, and how many of its records are poison: one of every shape in turn."""
    ids = register(stage.registry.url)
    poisoner = Poisoner(
        rng=random.Random(seed),
        write=Writer(ids),
        ids=ids,
        topics=("orders", "payments"),
        shapes=tuple(sorted(SHAPES)),
    )
    delivery = Delivery(stage.kafka.bootstrap_servers, Encoder(stage.schema_ids))
    expected, dead = Expected(), 0
    for number, event in enumerate(Shop(seed=seed).events(events), 1):
        expected.add(event)
        delivery.send(event)
        if number % _EVERY == 0 and number <= events - _GOOD_AT_THE_END:
            dead += 1
            poison = poisoner.make(f"poison-{dead}")
            delivery.send_bytes(poison.topic, poison.key, poison.value)
    log = EventLog(
        events=events,
        next_offsets=delivery.finish(),
        size_mb=delivery.size_bytes / 1e6,
        last_records=delivery.last_records(),
        expected=expected,
    )
    return log, dead
