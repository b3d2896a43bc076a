"""Live queries: the current result at once, then each changed one. Knows no transport.

A subscription is a query that is run again whenever the views may have moved. Equal ones of equal
callers share each computation. Nothing is queued: a subscriber that is slow finds the newest result
when it comes back, so positions never go back, states between may be skipped, and the last state
always arrives.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Hashable
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
import structlog

from api.execute import Answer, Executor, GraphQLRequest
from api.waiting import Movements
from views.positions import PositionVector, parse_position

REST_S: Final = 0.02
"""Between two computations of one query: under load, changes are taken together."""
_RETRY_S: Final = 0.5
_PASSING: Final = ("UNAVAILABLE", "STALE", "TIMEOUT")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """One result, labelled. `position` is None where it holds errors instead of a snapshot."""

    body: dict[str, Any]
    result_id: str
    position: PositionVector | None
    refused: bool


class GoingAwayError(Exception):
    """The process ends. The client should come again, to another one."""


class _Slot:
    """Where a subscriber finds the newest result."""

    def __init__(self) -> None:
        self.newest: Result | None = None
        self.filled = asyncio.Event()

    def fill(self, result: Result) -> None:
        self.newest = result
        self.filled.set()

    def end(self) -> None:
        self.newest = None
        self.filled.set()

    async def take(self) -> Result:
        await self.filled.wait()
        self.filled.clear()
        if self.newest is None:
            raise GoingAwayError
        return self.newest


class _Shared:
    """One query that is run again for all who follow it."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self.slots: set[_Slot] = set()
        self.task = task


class LiveQueries:
    """All live queries of a process."""

    def __init__(self, executor: Executor, movements: Movements) -> None:
        self._executor = executor
        self._movements = movements
        self._shared: dict[Hashable, _Shared] = {}

    @property
    def computed(self) -> int:
        """How many different queries are followed now."""
        return len(self._shared)

    async def results(
        self, request: GraphQLRequest, *, request_id: str, seen: str | None = None
    ) -> AsyncGenerator[Result, None]:
        """The current result, unless `seen` is its id, then each that differs from the one before.

        The request's demands hold for the first. A refused result is the last. GoingAwayError: the
        process ends.
        """
        asked = replace(request, live=True)
        key = _key(asked)
        slot = self._join(key, asked, request_id)
        try:
            last = result_of(await self._executor.run(asked, request_id=request_id))
            if last.refused or last.result_id != seen:
                yield last
            while not last.refused:
                result = await slot.take()
                if result.refused:
                    yield result
                    return
                if _goes_back(result, last):
                    continue
                if result.result_id != last.result_id:
                    yield result
                last = result
        finally:
            self._leave(key, slot)

    def end(self) -> None:
        """Let go of everybody who follows: GoingAwayError, where they wait."""
        for shared in self._shared.values():
            for slot in shared.slots:
                slot.end()

    async def stop(self) -> None:
        """End every computation."""
        tasks = [each.task for each in self._shared.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _join(self, key: Hashable, request: GraphQLRequest, request_id: str) -> _Slot:
        shared = self._shared.get(key)
        if shared is None:
            repeated = replace(request, at_least=None, max_staleness_ms=None)
            task = asyncio.create_task(self._repeat(key, repeated, request_id))
            shared = self._shared[key] = _Shared(task)
        slot = _Slot()
        shared.slots.add(slot)
        return slot

    def _leave(self, key: Hashable, slot: _Slot) -> None:
        shared = self._shared.get(key)
        if shared is None or slot not in shared.slots:
            return
        shared.slots.discard(slot)
        if not shared.slots:
            shared.task.cancel()
            del self._shared[key]

    async def _repeat(self, key: Hashable, request: GraphQLRequest, request_id: str) -> None:
        moved = self._movements.follow()
        try:
            while True:
                await moved.wait()
                moved.clear()
                result = result_of(await self._executor.run(request, request_id=request_id))
                if result.refused and result.body["errors"][0]["extensions"]["code"] in _PASSING:
                    # It passes: whoever follows has a result, and gets the next one in time.
                    moved.set()
                    await asyncio.sleep(_RETRY_S)
                    continue
                for slot in self._shared[key].slots:
                    slot.fill(result)
                await asyncio.sleep(REST_S)
        finally:
            self._movements.leave(moved)


def result_of(answer: Answer) -> Result:
    """An answer with the id of its data beside its position."""
    body = dict(answer.body)
    data = orjson.dumps([body.get("data"), body.get("errors")])
    result_id = hashlib.sha256(data).hexdigest()[:16]
    consistency = body.get("extensions", {}).get("consistency")
    position = None
    if consistency is not None:
        labelled = {**consistency, "resultId": result_id}
        body["extensions"] = {**body["extensions"], "consistency": labelled}
        position = parse_position(consistency["position"])
    return Result(body, result_id, position, answer.refused)


def _goes_back(result: Result, last: Result) -> bool:
    if result.position is None or last.position is None:
        return False
    return not result.position.includes(last.position)


def _key(request: GraphQLRequest) -> Hashable:
    variables = orjson.dumps(request.variables or {}, option=orjson.OPT_SORT_KEYS)
    return request.query, request.operation_name, variables, request.caller
