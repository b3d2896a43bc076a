"""`RESULTS.md`: one section per table, each with the command, the commit and the machine it is of.

Stands apart from the tables because a run of one part replaces its own sections and leaves the
others as they are.
"""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.debezium import DEBEZIUM_VERSION
from bench.peers import PEERS_LOCK
from bench.stage import CHECKOUT
from dev.cache import KAFKA_VERSION, POSTGRES_VERSION, REGISTRY_VERSION

TITLES: Final = (
    "Ingest throughput",
    "Serving",
    "Freshness",
    "Live queries",
    "Rebuild alone",
    "Rebuild beside live load",
    "Poison",
)
"""Every section, in order. One that is called otherwise is dropped at the next run."""
_HEAD: Final = (
    "# Results\n\nWhat is compared is the ratio within a round: median of the rounds, lowest to"
    " highest. Absolute figures belong to one machine and one hour. Each section says what it was"
    " made by; [README.md](README.md) says how.\n\n"
)
_PEERS: Final = ("quixstreams", "strawberry-graphql", "sqlalchemy")
_OURS: Final = ("confluent-kafka", "fastavro", "psycopg", "strawberry-graphql", "uvicorn")


@dataclass(frozen=True, slots=True)
class Table:
    """A heading, what it measures, and rows of text."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self, origin: str) -> str:
        """As a section of Markdown; on a terminal the columns line up too."""
        widths = [
            max(len(row[i]) for row in (self.head, *self.rows)) for i in range(len(self.head))
        ]
        lines = [self.head, tuple("-" * width for width in widths), *self.rows]
        text = "\n".join(
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
            for line in lines
        )
        return f"## {self.title}\n\n{self.note}\n\n{text}\n\n{origin}\n"


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a run was made."""

    command: str
    events: int
    partitions: int
    rounds: int


def document(tables: Sequence[Table], conditions: Conditions, *, before: str = "") -> str:
    """The whole of `RESULTS.md`: these tables, and of `before` the sections that they are not."""
    made = {table.title: table.markdown(origin(conditions)) for table in tables}
    sections = {**sections_of(before), **made}
    return _HEAD + "\n".join(sections[title] for title in TITLES if title in sections)


def sections_of(text: str) -> Mapping[str, str]:
    """The sections of a document by their titles."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    titled = (part.rstrip("\n") + "\n" for part in parts if part.startswith("## "))
    return {part.partition("\n")[0].removeprefix("## "): part for part in titled}


def origin(conditions: Conditions) -> str:
    """What a section was made by, and on what."""
    rounds = "" if conditions.rounds == 1 else f", {conditions.rounds} rounds in turn"
    return (
        f"Made by `{conditions.command}` on {datetime.now(UTC):%Y-%m-%d}, commit {commit()}"
        f"{rounds}. {_machine()}. {_versions()}."
    )


def commit() -> str:
    """The commit that runs, and whether it was changed."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"


def _machine() -> str:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"{platform.system()} {platform.machine()}, load {os.getloadavg()[0]:.1f} at the end"
    )


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown processor")


def _versions() -> str:
    pinned = dict(
        line.split()[0].split("==")
        for line in PEERS_LOCK.read_text().splitlines()
        if "==" in line and not line.startswith((" ", "#"))
    )
    return ", ".join(
        [
            f"Python {platform.python_version()}",
            f"PostgreSQL {POSTGRES_VERSION}",
            f"Apache Kafka {KAFKA_VERSION}",
            f"Apicurio Registry {REGISTRY_VERSION}",
            f"Debezium JDBC {DEBEZIUM_VERSION}",
            *(f"{name} {version(name)}" for name in _OURS),
            *(f"{name} {pinned[name]} (peers)" for name in _PEERS),
        ]
    )
