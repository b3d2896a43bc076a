"""What a snapshot contains: its position, its freshness, and whether that is enough. Pure.

Stands apart because the same judgement is made of every answer, of every cursor that comes back,
and of every request that says what its answer must contain.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from api.errors import BadUserInputError, StaleError
from views.positions import (
    BadPositionError,
    Partition,
    PositionVector,
    generation_of,
    parse_position,
)

FRESH: Final = timedelta(seconds=5)
_INT_MAX: Final = 2**31 - 1
RETRY_AFTER_MS: Final = 1000
WAIT_MS: Final = 1000
MAX_WAIT_MS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """A row of `positions`, as far as readers need it."""

    topic: str
    partition: int
    next_offset: int
    end_offset: int | None
    cluster_id: str | None
    topic_id: str | None
    last_event_at: datetime | None
    complete_as_of: datetime | None

    @property
    def at_end(self) -> bool:
        """Whether the position has reached the end that the broker last told."""
        return self.end_offset is not None and self.next_offset >= self.end_offset

    @property
    def lag_events(self) -> int | None:
        """How many offsets are still to be read; null while the end is not known."""
        return None if self.end_offset is None else max(self.end_offset - self.next_offset, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """What one snapshot contains. `read_at` is the database's clock when it was taken."""

    vector: PositionVector
    token: str
    """The position as text."""
    as_of: datetime | None
    read_at: datetime
    build: str
    change_counter: int
    partitions: tuple[PartitionState, ...]

    @property
    def lag_ms(self) -> int | None:
        """How old the answer may be, by the database's clock; null while that is not known."""
        if self.as_of is None:
            return None
        age_ms = (self.read_at - self.as_of) // timedelta(milliseconds=1)
        return min(max(age_ms, 0), _INT_MAX)

    @property
    def caught_up(self) -> bool:
        """Whether every partition has reached its end, and that is known to be so now."""
        fresh = self.as_of is not None and self.read_at - self.as_of < FRESH
        return fresh and all(state.at_end for state in self.partitions)

    def generation(self, topics: Iterable[str]) -> str | None:
        """What the part after '@' is for these topics; None where an id is not known yet."""
        return _generation(self.partitions, topics)


def consistency_of(
    states: Sequence[PartitionState],
    *,
    topics: Sequence[str],
    read_at: datetime,
    build: str,
    change_counter: int,
) -> Consistency:
    """The consistency of a snapshot from the rows of its `positions`.

    Rows of topics that no stream names are left out: no reader can see their events.
    """
    ours = tuple(sorted((s for s in states if s.topic in topics), key=_place))
    bare = PositionVector({_place(state): state.next_offset for state in ours})
    vector = PositionVector(bare.next_offsets, _generation(ours, bare.topics()))
    return Consistency(
        vector=vector,
        token=str(vector),
        as_of=_as_of(ours, topics),
        read_at=read_at,
        build=build,
        change_counter=change_counter,
        partitions=ours,
    )


def _place(state: PartitionState) -> Partition:
    return state.topic, state.partition


def _generation(states: Sequence[PartitionState], topics: Iterable[str]) -> str | None:
    wanted = set(topics)
    named = [state for state in states if state.topic in wanted]
    clusters = {state.cluster_id for state in named}
    ids = {(state.topic, state.topic_id) for state in named}
    known = [(topic, topic_id) for topic, topic_id in ids if topic_id is not None]
    cluster = next(iter(clusters)) if len(clusters) == 1 else None
    if cluster is None or len(known) < len(ids) or len(known) != len(wanted):
        return None
    return generation_of(cluster, known)


def _as_of(states: Sequence[PartitionState], topics: Sequence[str]) -> datetime | None:
    # A topic without a row has not been looked at: what it holds is not known to be in.
    if {state.topic for state in states} != set(topics):
        return None
    moments = [state.complete_as_of for state in states]
    known = [moment for moment in moments if moment is not None]
    return min(known) if len(known) == len(moments) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What the answer must contain, as its request says."""

    at_least: PositionVector | None = None
    max_staleness_ms: int | None = None
    timeout_ms: int = WAIT_MS


class AheadError(StaleError):
    """What was asked for lies ahead of the snapshot: waiting may help, until the time is up."""

    def __init__(self, wanted: PositionVector, consistency: Consistency) -> None:
        super().__init__(
            "The views do not contain the position asked for yet.", **_standing(consistency)
        )
        self.wanted = wanted
        self.consistency = consistency

    def missing(self) -> dict[Partition, int]:
        """Per partition the next offset that is not reached yet."""
        there = self.consistency.vector.next_offsets
        return {tp: n for tp, n in self.wanted.next_offsets.items() if there.get(tp, 0) < n}


def requirement_of(
    *,
    at_least: str | None,
    max_staleness_ms: int | None,
    topics: Sequence[str],
    timeout_ms: int | None = None,
) -> Requirement:
    """Read a request's demands. BadUserInputError: no position, or a topic that no stream names."""
    if max_staleness_ms is not None and max_staleness_ms < 0:
        raise BadUserInputError("maxStalenessMs: 0 or more")
    if timeout_ms is not None and not 0 <= timeout_ms <= MAX_WAIT_MS:
        raise BadUserInputError(f"timeoutMs: 0 to {MAX_WAIT_MS}")
    return Requirement(
        at_least=None if at_least is None else _vector(at_least, topics),
        max_staleness_ms=max_staleness_ms,
        timeout_ms=WAIT_MS if timeout_ms is None else timeout_ms,
    )


def _vector(token: str, topics: Sequence[str]) -> PositionVector:
    try:
        vector = parse_position(token)
    except BadPositionError as error:
        raise BadUserInputError(str(error)) from error
    unknown = sorted(set(vector.topics()) - set(topics))
    if unknown:
        raise BadUserInputError(f"position names topic {unknown[0]!r}, which no view is made from")
    return vector


def require(requirement: Requirement, consistency: Consistency) -> None:
    """Return if the snapshot contains what is required.

    BadUserInputError: the position is of another generation (another cluster, a recreated topic).
    AheadError: not yet. StaleError: not as fresh. Both say what the data contain instead.
    """
    if requirement.at_least is not None:
        _require_generation(requirement.at_least, consistency)
        if not consistency.vector.includes(requirement.at_least):
            raise AheadError(requirement.at_least, consistency)
    if requirement.max_staleness_ms is not None:
        lag_ms = consistency.lag_ms
        if lag_ms is None or lag_ms > requirement.max_staleness_ms:
            raise stale("The views are not as fresh as asked for.", consistency)


def _require_generation(vector: PositionVector, consistency: Consistency) -> None:
    if vector.generation is None:
        return
    ours = consistency.generation(vector.topics())
    if ours is not None and ours != vector.generation:
        raise BadUserInputError(
            "The position belongs to other topics than those the views are made from now."
        )


def stale(message: str, consistency: Consistency) -> StaleError:
    """The error that says what the data contain instead."""
    return StaleError(message, **_standing(consistency))


def _standing(consistency: Consistency) -> dict[str, Any]:
    return {
        "position": consistency.token,
        "lagMs": consistency.lag_ms,
        "retryAfterMs": RETRY_AFTER_MS,
    }
