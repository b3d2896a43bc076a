"""`viewkeeper status`, `pause` and `resume`: how far the views are, and who may go on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import psycopg
import typer
from confluent_kafka.admin import AdminClient

from cli.misuse import CommandError
from cli.settings import DatabaseSettings, StatusSettings
from cli.terminal import answer, answer_json, answer_table, table
from cli.topics import known_topic
from ingest import operate, watermarks
from ingest.operate import Build, PartitionState
from views import CATALOGUE
from views.positions import Partition

BROKER_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10

Topic = Annotated[str, typer.Argument(help="A topic of the catalogue.")]
PartitionNumber = Annotated[int | None, typer.Argument(min=0, help="All of them if not given.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One partition of a build against the broker. `lag_s` is null until it was once complete."""

    topic: str
    partition: int
    next_offset: int
    end_offset: int
    lag_events: int
    lag_s: float | None
    owner: str | None
    owner_epoch: int


@dataclass(frozen=True, slots=True)
class BuildStatus:
    """One build and its partitions. `held` says, per partition, why no worker applies it."""

    build: Build
    lines: list[Line]
    held: Mapping[Partition, str]

    @property
    def caught_up(self) -> bool:
        """Whether every event that the broker has is in."""
        return all(line.lag_events == 0 for line in self.lines)


def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """How far each build is, per partition, against the broker's high watermarks."""
    settings = StatusSettings.model_validate({})
    found = read_status(settings.dsn, settings.client_options())
    if as_json:
        answer_json(_for_programs(found))
        return
    for one in found:
        _show(one)


def pause(topic: Topic, partition: PartitionNumber = None) -> None:
    """Have the workers leave a topic, or one partition of it, alone."""
    known_topic(topic)
    with connect() as connection:
        places = operate.pause(connection, topic, partition)
    answer(f"paused: {_named(places)}")


def connect(dsn: str | None = None) -> psycopg.Connection[Any]:
    """A connection as the owner, closed (and committed) by `with`."""
    address = dsn or DatabaseSettings.model_validate({}).dsn
    return psycopg.connect(
        address, connect_timeout=CONNECT_TIMEOUT_S, application_name="viewkeeper"
    )


def read_status(dsn: str, client_options: Mapping[str, str]) -> list[BuildStatus]:
    """Ask the database first and the broker after it: a lag is never shown as less than it is.

    TransientError: the broker does not answer. CommandError: a topic does not exist.
    """
    with connect(dsn) as connection:
        connection.autocommit = True
        found = [(build, _rows(connection, build)) for build in operate.builds(connection)]
    ends = _ends(client_options)
    return [_of_build(build, states, ends) for build, states in found if states is not None]


def _rows(
    connection: psycopg.Connection[Any], build: Build
) -> dict[Partition, PartitionState] | None:
    """The positions of a build; None: it was dropped a moment ago, as at the end of a verify."""
    try:
        return {state.place: state for state in operate.partitions(connection, build)}
    except psycopg.errors.UndefinedTable:
        if any(other.number == build.number for other in operate.builds(connection)):
            raise
        return None


def _ends(client_options: Mapping[str, str]) -> dict[Partition, int]:
    # librdkafka's own log lines would say a third time what the command says.
    admin = AdminClient({"log_level": "0", **client_options})
    topics = watermarks.topic_ids(admin, CATALOGUE.topics, BROKER_TIMEOUT_S)
    missing = sorted(set(CATALOGUE.topics) - set(topics))
    if missing:
        raise CommandError(f"the broker has no topic {', '.join(missing)}: create it first")
    every = [(name, p) for name, info in topics.items() for p in range(info.partitions)]
    return watermarks.high_watermarks(admin, every, BROKER_TIMEOUT_S)


def _of_build(
    build: Build, states: Mapping[Partition, PartitionState], ends: Mapping[Partition, int]
) -> BuildStatus:
    lines = [_line(place, states.get(place), end) for place, end in sorted(ends.items())]
    held = {place: why for place, state in states.items() if (why := _held(state))}
    return BuildStatus(build, lines, held)


def _line(place: Partition, state: PartitionState | None, end: int) -> Line:
    """A partition without a row is at 0."""
    at = state.next_offset if state else 0
    lag = max(end - at, 0)
    behind_s = state.behind_s if state else None
    return Line(
        topic=place[0],
        partition=place[1],
        next_offset=at,
        end_offset=end,
        lag_events=lag,
        lag_s=0.0 if lag == 0 else behind_s,
        owner=state.owner if state else None,
        owner_epoch=state.owner_epoch if state else 0,
    )


def _held(state: PartitionState) -> str | None:
    return state.stopped_reason or ("paused" if state.paused else None)


def _for_programs(found: list[BuildStatus]) -> dict[str, object]:
    """Caught up: whether the build that readers are served from is."""
    return {
        "caught_up": any(one.build.live and one.caught_up for one in found),
        "builds": [
            {"name": one.build.name, "live": one.build.live, "partitions": one.lines}
            for one in found
        ],
    }


def _show(one: BuildStatus) -> None:
    figures = ("part", "next offset", "end offset", "lag", "lag s")
    state = "live" if one.build.live else one.build.state
    caught_up = "caught up" if one.caught_up else "behind"
    shown = table(
        *("topic", "part", "next offset", "end offset", "lag", "lag s", "owner", ""),
        right=figures,
        title=f"{one.build.name} ({state}), {caught_up}",
    )
    for line in one.lines:
        shown.add_row(
            line.topic,
            str(line.partition),
            f"{line.next_offset:,}",
            f"{line.end_offset:,}",
            f"{line.lag_events:,}",
            "-" if line.lag_s is None else f"{line.lag_s:,.1f}",
            line.owner or "nobody",
            one.held.get((line.topic, line.partition), ""),
        )
    answer_table(shown)


def _named(places: list[Partition]) -> str:
    return ", ".join(f"{topic}:{partition}" for topic, partition in places)
