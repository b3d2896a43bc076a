"""What every operation leaves behind: figures by its name, and a line in the log where it was slow.

Stands apart from the transports, which all tell it what became of an operation, and from
`metrics.py`, which is the list of what is counted.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal

import structlog
from graphql import GraphQLError, OperationDefinitionNode, parse

from api.execute import Answer
from api.metrics import Metrics
from api.ran import Ran

Over = Literal["http", "sse", "websocket"]

MOST_NAMES: Final = 100
_LONGEST_NAME: Final = 80
_LONGEST_SHAPE: Final = 2_000
_OTHER: Final = "other"

_log = structlog.get_logger(__name__)


class Names:
    """Operation names as labels. Bounded: those of trusted documents, or the first that come."""

    def __init__(self, trusted: Iterable[str] | None = None) -> None:
        self._open = trusted is None
        self._known = {"", *(trusted or ())}

    def label(self, name: str) -> str:
        """The name itself, or "other"; empty for an operation without a name."""
        if name in self._known:
            return name
        if self._open and len(self._known) <= MOST_NAMES and len(name) <= _LONGEST_NAME:
            self._known.add(name)
            return name
        return _OTHER


def names_in(documents: Iterable[str]) -> frozenset[str]:
    """The names of all operations in these documents."""
    return frozenset(name for text in documents for name in _names(text))


def _names(text: str) -> Iterable[str]:
    try:
        found = parse(text).definitions
    except GraphQLError as error:
        # Whoever asks for it will be told; until then it has no operations to count.
        _log.warning("a trusted document cannot be parsed", error=error.message)
        return []
    operations = (each for each in found if isinstance(each, OperationDefinitionNode))
    return [each.name.value for each in operations if each.name is not None]


class Figures:
    """Takes note of operations. `slow_s`: from when on one is slow; 0: none is."""

    def __init__(self, metrics: Metrics, names: Names, *, slow_s: float) -> None:
        self._names = names
        self._slow_s = slow_s
        self._statements = metrics.operation_statements
        # To find a label's place takes longer than to count there.
        self._operations = lru_cache(None)(metrics.operations.labels)
        self._seconds = lru_cache(None)(metrics.operation_seconds.labels)
        self._cost = lru_cache(None)(metrics.operation_cost.labels)
        self._ways = lru_cache(None)(metrics.operation_ways.labels)
        self._computations = lru_cache(None)(metrics.live_computations.labels)
        self._slow = lru_cache(None)(metrics.slow_operations.labels)

    def answered(self, answer: Answer, *, over: Over, size: int = 0) -> None:
        """An operation has its answer, of that many bytes, or was refused before it ran."""
        self.followed(answer.ran, outcome=answer.outcome, over=over)
        if answer.ran is not None:
            self._worked(answer.ran, answer, size)

    def computed(self, answer: Answer, *, size: int) -> None:
        """A live query was computed once, for all who follow it."""
        if answer.ran is not None:
            name = self._names.label(answer.ran.name)
            self._computations(name, answer.outcome).inc()
            self._worked(answer.ran, answer, size)

    def followed(
        self, ran: Ran | None, *, outcome: str, over: Over, seconds: float | None = None
    ) -> None:
        """A subscription has its first result, after so long, or an operation its only one."""
        name = self._names.label(ran.name if ran else "")
        self._operations(name, over, outcome).inc()
        if ran is not None:
            took_s = ran.seconds if seconds is None else seconds
            self._seconds(name).observe(took_s)
            self._cost(name).observe(ran.cost)

    def _worked(self, ran: Ran, answer: Answer, size: int) -> None:
        self._statements.observe(answer.statements)
        if answer.way is not None:
            self._ways(answer.way).inc()
        if 0 < self._slow_s <= ran.worked_s:
            self._slow(self._names.label(ran.name)).inc()
            _tell_slow(ran, answer, size)


def _tell_slow(ran: Ran, answer: Answer, size: int) -> None:
    _log.warning(
        "slow operation",
        operation=ran.name[:_LONGEST_NAME],
        ms=round(ran.worked_s * 1000, 1),
        waited_ms=round((ran.seconds - ran.worked_s) * 1000, 1),
        outcome=answer.outcome,
        cost=ran.cost,
        bytes=size,
        statements=answer.statements,
        way=answer.way,
        role=ran.role,
        document=ran.document_hash,
        statement=ran.statement_hash,
        shape=ran.compiled.shape[:_LONGEST_SHAPE] if ran.compiled else "",
        request_id=ran.request_id,
    )
