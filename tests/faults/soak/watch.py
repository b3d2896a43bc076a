"""Measures a soak while it runs: memory, open files, connections (I10), and the money (I7).

Stands apart because nothing here takes part in what happens: it looks, on a thread of its own.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from dev.process import OwnedProcess
from tests.faults.harness.judge import BUILD
from tests.faults.harness.threads import Threads
from tests.faults.oracle import check_invariants

EVERY_S: Final = 2.0
MONEY_EVERY: Final = 8
MOST_WORKER_MB: Final = 400.0
MOST_API_MB: Final = 400.0
MOST_OPEN_FILES: Final = 150
MOST_CONNECTIONS: Final = 50
GROWTH_SHARE: Final = 0.15
GROWTH_SLACK: Final = {"MB": 20.0, "open files": 8.0, "connections": 8.0}
SETTLING_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process held at one moment of its life."""

    age_s: float
    resident_mb: float
    open_files: int


@dataclass(slots=True)
class Course:
    """The samples of one process, one list for each of its lives."""

    lives: dict[int, list[Sample]] = field(default_factory=lambda: defaultdict(list))

    def most(self, what: Callable[[Sample], float]) -> float:
        """The highest of all."""
        return max((what(s) for life in self.lives.values() for s in life), default=0.0)

    def by_minute(self, what: Callable[[Sample], float]) -> list[float]:
        """What the longest life held at the end of each of its minutes."""
        life = max(self.lives.values(), key=len, default=[])
        ends = {int(sample.age_s // 60): what(sample) for sample in life}
        return [round(ends[minute]) for minute in sorted(ends)]

    def growth(self, what: Callable[[Sample], float]) -> tuple[float, float]:
        """The medians of the first and the last quarter of the longest life, once it is settled."""
        life = max(self.lives.values(), key=len, default=[])
        settled = [what(sample) for sample in life if sample.age_s >= SETTLING_S] or [
            what(sample) for sample in life
        ]
        quarter = max(1, len(settled) // 4)
        return statistics.median(settled[:quarter]), statistics.median(settled[-quarter:])


class Watch:
    """Looks at processes and the database until it is stopped."""

    def __init__(self, dsn: str, processes: Mapping[str, OwnedProcess]) -> None:
        self._dsn = dsn
        self._processes = processes
        self._threads = Threads([self._run])
        self.courses: dict[str, Course] = {name: Course() for name in processes}
        self.connections: list[int] = []
        self.money_checked = 0
        self.money_wrong: list[str] = []
        self._born: dict[int, float] = {}

    def start(self) -> Self:
        """Look from now on."""
        self._threads.start()
        return self

    def stop(self) -> None:
        """Look no more."""
        self._threads.stop(60)

    def _run(self) -> None:
        turn = 0
        while not self._threads.stopping.wait(EVERY_S):
            turn += 1
            for name, process in self._processes.items():
                self._sample(name, process)
            try:
                self._look_at_database(with_money=turn % MONEY_EVERY == 0)
            except psycopg.OperationalError:
                continue  # it is away, as it is meant to be now and then

    def _sample(self, name: str, process: OwnedProcess) -> None:
        if not process.running:
            return
        home = Path(f"/proc/{process.pid}")
        try:
            status = (home / "status").read_text().splitlines()
            files = sum(1 for _ in (home / "fd").iterdir())
        except OSError:
            return  # it ended between the two looks
        resident = [line for line in status if line.startswith("VmRSS")]
        if resident:
            born = self._born.setdefault(process.pid, time.monotonic())
            sample = Sample(time.monotonic() - born, int(resident[0].split()[1]) / 1024, files)
            self.courses[name].lives[process.pid].append(sample)

    def _look_at_database(self, *, with_money: bool) -> None:
        with psycopg.connect(self._dsn, connect_timeout=5) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            ).fetchone()
        self.connections.append(0 if row is None else int(row[0]))
        if with_money:
            self.money_wrong += [str(said) for said in check_invariants(self._dsn, BUILD)]
            self.money_checked += 1

    def problems(self) -> list[str]:
        """I10: what is above its cap, or grew."""
        found = []
        for name, course in self.courses.items():
            most_mb = MOST_API_MB if name == "api" else MOST_WORKER_MB
            found += _above(name, "MB", course.most(_mb), most_mb)
            found += _above(name, "open files", course.most(_files), MOST_OPEN_FILES)
        for name in ("worker 1", "api"):  # they live from start to end
            course = self.courses[name]
            found += _grown(name, "MB", course.growth(_mb))
            found += _grown(name, "open files", course.growth(_files))
        most = max(self.connections, default=0)
        found += _above("the database", "connections", most, MOST_CONNECTIONS)
        quarters = _quarters(self.connections)
        if quarters:
            found += _grown("the database", "connections", (quarters["first"], quarters["last"]))
        return found

    def figures(self) -> dict[str, dict[str, Any]]:
        """For the report: most and growth of each process, and the database's connections."""
        rows: dict[str, dict[str, Any]] = {
            name: {
                "lives": len(course.lives),
                "most_mb": round(course.most(_mb), 1),
                "first_mb": round(course.growth(_mb)[0], 1),
                "last_mb": round(course.growth(_mb)[1], 1),
                "most_open_files": course.most(_files),
                "first_open_files": course.growth(_files)[0],
                "last_open_files": course.growth(_files)[1],
                "mb_by_minute": course.by_minute(_mb),
            }
            for name, course in self.courses.items()
            if course.lives
        }
        return rows | {"database connections": _quarters(self.connections)}


def _mb(sample: Sample) -> float:
    return sample.resident_mb


def _files(sample: Sample) -> float:
    return float(sample.open_files)


def _quarters(values: Sequence[int]) -> dict[str, float]:
    quarter = max(1, len(values) // 4)
    if not values:
        return {}
    return {
        "most": max(values),
        "first": statistics.median(values[:quarter]),
        "last": statistics.median(values[-quarter:]),
    }


def _above(name: str, unit: str, value: float, cap: float) -> list[str]:
    return [f"{name} had {value:.0f} {unit}, allowed are {cap:.0f}"] if value > cap else []


def _grown(name: str, unit: str, medians: tuple[float, float]) -> list[str]:
    first, last = medians
    if last > first * (1 + GROWTH_SHARE) + GROWTH_SLACK[unit]:
        return [f"{name} grew from {first:.0f} to {last:.0f} {unit}"]
    return []
