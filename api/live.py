"""Live queries: the current result at once, then each changed one. Knows no transport.

A subscription is a query that is run again whenever the views may have moved. Equal ones of equal
callers share each computation, the first result included; and of all computations only a few run
at once, so that a thousand followers leave connections to everybody else. Nothing is queued: a
subscriber that is slow finds the newest result when it comes back, so positions never go back,
states between may be skipped, and the last state always arrives. The same holds for one whose
budget is spent: the next computation waits until one of those who follow can pay for it.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from api.execute import Answer, Executor, GraphQLRequest
from api.figures import Figures, Over
from api.ran import Ran
from api.waiting import Movements
from views.positions import BadPositionError, PositionVector, parse_position

REST_S: Final = 0.02
"""Between two computations of one query: under load, changes are taken together."""
_RETRY_S: Final = 0.5
_PASSING: Final = ("UNAVAILABLE", "STALE", "TIMEOUT")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """One result, labelled. `position` is None where it holds errors instead of a snapshot.

    `text` is the body as JSON, made once for all who follow. `ran` tells of its computation.
    """

    body: dict[str, Any]
    text: bytes
    result_id: str
    position: PositionVector | None
    refused: bool
    outcome: str
    ran: Ran | None


class GoingAwayError(Exception):
    """The process ends. The client should come again, to another one."""


class _Slot:
    """Where a subscriber finds the newest result."""

    def __init__(self, payer: str | None) -> None:
        self.payer = payer
        self.newest: Result | None = None
        self.filled = asyncio.Event()
        self.ended = False

    def fill(self, result: Result) -> None:
        self.newest = result
        self.filled.set()

    def end(self) -> None:
        self.ended = True
        self.filled.set()

    async def take(self) -> Result:
        await self.filled.wait()
        if self.ended or self.newest is None:
            raise GoingAwayError
        self.filled.clear()
        return self.newest


class _Shared:
    """One query that is run again for all who follow it, one run at a time."""

    def __init__(self, run: Callable[[], Awaitable[Result]], places: asyncio.Semaphore) -> None:
        self.slots: set[_Slot] = set()
        self.repeating: asyncio.Task[None] | None = None
        self._run = run
        self._places = places
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[Result] | None = None
        self._tasks: set[asyncio.Task[Result]] = set()

    async def fresh(self) -> Result:
        """A result whose snapshot is taken from now on; whoever asks before that shares it."""
        if self._next is None:
            self._next = asyncio.create_task(self._in_turn())
            self._tasks.add(self._next)
            self._next.add_done_callback(self._tasks.discard)
        return await asyncio.shield(self._next)

    def stop(self) -> "list[asyncio.Task[Any]]":
        """Cancel what runs; the tasks, to wait for."""
        tasks = [*self._tasks, *([self.repeating] if self.repeating else [])]
        for task in tasks:
            task.cancel()
        return tasks

    async def _in_turn(self) -> Result:
        async with self._turn, self._places:
            self._next = None
            return await self._run()


class LiveQueries:
    """All live queries of a process. `at_once`: how many are computed at the same time."""

    def __init__(
        self, executor: Executor, movements: Movements, figures: Figures, *, at_once: int = 4
    ) -> None:
        self._executor = executor
        self._movements = movements
        self._figures = figures
        self._shared: dict[Hashable, _Shared] = {}
        self._places = asyncio.Semaphore(at_once)
        self._ended = False

    @property
    def computed(self) -> int:
        """How many different queries are followed now."""
        return len(self._shared)

    @property
    def followers(self) -> int:
        """How many subscriptions follow them."""
        return sum(len(each.slots) for each in self._shared.values())

    async def results(
        self, request: GraphQLRequest, *, request_id: str, over: Over, seen: str | None = None
    ) -> AsyncGenerator[Result, None]:
        """The current result, unless `seen` is its id, then each that differs from the one before.

        The request's demands hold for the first. A refused result is the last. GoingAwayError: the
        process ends.
        """
        began = time.perf_counter()
        refusal = self._executor.pay(request._replace(live=True), request_id=request_id)
        if refusal is not None:
            self._figures.answered(refusal, over=over)
            yield result_of(refusal)
            return
        asked = request._replace(live=True, payer=None)
        key = _key(asked)
        shared = self._shared_of(key, asked, request_id)
        slot = _Slot(request.payer)
        shared.slots.add(slot)
        if self._ended:
            slot.end()
        try:
            last = await self._first(shared, asked, request_id)
            took_s = time.perf_counter() - began
            self._figures.followed(last.ran, outcome=last.outcome, over=over, seconds=took_s)
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
            self._leave(key, shared, slot)

    def end(self) -> None:
        """Let go of everybody who follows: GoingAwayError, where they wait.

        Who comes later gets a first result, and then the same.
        """
        self._ended = True
        for shared in self._shared.values():
            for slot in shared.slots:
                slot.end()

    async def stop(self) -> None:
        """End every computation."""
        tasks = [task for each in self._shared.values() for task in each.stop()]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _shared_of(self, key: Hashable, request: GraphQLRequest, request_id: str) -> _Shared:
        if key not in self._shared:
            bare = request._replace(at_least=None, max_staleness_ms=None, timeout_ms=None)
            shared = _Shared(lambda: self._compute(bare, request_id), self._places)
            cost = self._executor.cost_of(bare)
            # It outlives the request that came first, and belongs to none: no context is kept.
            repeating = self._repeat(shared, cost)
            shared.repeating = asyncio.create_task(repeating, context=Context())
            self._shared[key] = shared
        return self._shared[key]

    def _leave(self, key: Hashable, shared: _Shared, slot: _Slot) -> None:
        shared.slots.discard(slot)
        if not shared.slots and self._shared.get(key) is shared:
            shared.stop()
            del self._shared[key]

    async def _first(self, shared: _Shared, request: GraphQLRequest, request_id: str) -> Result:
        """The shared result if it meets the request's demands; else one of its own, waited for."""
        if request.max_staleness_ms is None and request.timeout_ms is None:
            result = await shared.fresh()
            if request.at_least is None or _contains(result, request.at_least):
                return result
        return await self._compute(request, request_id)

    async def _compute(self, request: GraphQLRequest, request_id: str) -> Result:
        answer = await self._executor.run(request, request_id=request_id)
        result = result_of(answer)
        self._figures.computed(answer, size=len(result.text))
        return result

    async def _afford(self, shared: _Shared, cost: int) -> None:
        """Wait until a follower can pay for the next computation, and let the richest pay."""
        budgets = self._executor.budgets
        if not budgets.counted:
            return
        while True:
            payer = budgets.richest({each.payer for each in shared.slots if each.payer})
            wait_s = budgets.wait_s(payer)
            if wait_s <= 0:
                break
            await asyncio.sleep(wait_s)
        budgets.take(payer, cost)

    async def _repeat(self, shared: _Shared, cost: int) -> None:
        moved = self._movements.follow()
        try:
            while True:
                await moved.wait()
                await self._afford(shared, cost)
                moved.clear()
                result = await shared.fresh()
                if result.refused and result.body["errors"][0]["extensions"]["code"] in _PASSING:
                    # It passes: whoever follows has a result, and gets the next one in time.
                    moved.set()
                    await asyncio.sleep(_RETRY_S)
                    continue
                for slot in shared.slots:
                    slot.fill(result)
                await asyncio.sleep(REST_S)
        finally:
            self._movements.leave(moved)


def result_of(answer: Answer) -> Result:
    """An answer with the id of its data beside its position."""
    body = dict(answer.body)
    data = orjson.dumps([body.get("data"), [_lasting(each) for each in body.get("errors", ())]])
    result_id = hashlib.sha256(data).hexdigest()[:16]
    consistency = body.get("extensions", {}).get("consistency")
    position = None
    if consistency is not None:
        labelled = {**consistency, "resultId": result_id}
        body["extensions"] = {**body["extensions"], "consistency": labelled}
        position = parse_position(consistency["position"])
    return Result(
        body,
        orjson.dumps(body),
        result_id,
        position,
        refused=answer.refused,
        outcome=answer.outcome,
        ran=answer.ran,
    )


def _lasting(error: Mapping[str, Any]) -> dict[str, Any]:
    """An error without what differs each time it is met."""
    extensions = error.get("extensions", {})
    return {**error, "extensions": {k: v for k, v in extensions.items() if k != "requestId"}}


def _contains(result: Result, at_least: str) -> bool:
    """Whether it surely does; in doubt the executor judges."""
    try:
        wanted = parse_position(at_least)
    except BadPositionError:
        return False
    there = result.position
    if there is None or wanted.generation not in (None, there.generation):
        return False
    return {*wanted.topics()} <= {*there.topics()} and there.includes(wanted)


def _goes_back(result: Result, last: Result) -> bool:
    there, before = result.position, last.position
    if there is None or before is None or _is_another_life(there, before):
        return False
    return not there.includes(before)


def _is_another_life(one: PositionVector, other: PositionVector) -> bool:
    """The topics were made anew: their offsets begin again, and compare with nothing before."""
    generations = {one.generation, other.generation}
    return one.topics() == other.topics() and None not in generations and len(generations) == 2


def _key(request: GraphQLRequest) -> Hashable:
    variables = orjson.dumps(request.variables or {}, option=orjson.OPT_SORT_KEYS)
    return request.query, request.operation_name, variables, request.caller
