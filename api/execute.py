"""From a GraphQL request to its answer: check, read one snapshot, say what the answer contains.

Two ways lead there; `route.py` decides which. Compiled: one statement returns the answer's JSON.
Plain: graphql-core walks the schema's resolvers; it can answer every query, and what is compiled
must be the same to the byte.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
import structlog
from graphql import ExecutionResult, GraphQLError, GraphQLSchema, execute

from api.batches import Batches
from api.budgets import REFUSED_COST, UNCOUNTED, Budgets
from api.callers import OPERATOR, Caller
from api.documents import Documents, MethodError, Operation, RefusedError
from api.errors import (
    WHOLE_OPERATION,
    ApiError,
    BuildGoneError,
    cause_of,
    refusal_of,
    shown,
    unexpected,
    with_code,
)
from api.etag import has_tag, matches, tag
from api.graph import Context
from api.lists import BrokenListError
from api.page import PageSizes
from api.position import Consistency, Requirement, require, requirement_of
from api.ran import Ran
from api.read import Reader, Reading, Snapshot
from api.route import Compiled, Routes, Way
from api.scalars import date_time_text
from api.spans import Span, span
from api.splice import spliced
from api.waiting import Movements

_log = structlog.get_logger(__name__)


class GraphQLRequest(NamedTuple):
    """What a client sent, whichever way. `payer`: whose budget it is taken from; None: nobody's."""

    query: str
    variables: Mapping[str, Any] | None = None
    operation_name: str | None = None
    at_least: str | None = None
    max_staleness_ms: int | None = None
    timeout_ms: int | None = None
    only_query: bool = False
    if_none_match: str | None = None
    caller: Caller | None = None
    payer: str | None = None
    live: bool = False


class Answer(NamedTuple):
    """The body of a response, and what its transport must know about it.

    `refused` means that there is no `data`: the request was not run, or not in one whole snapshot.
    """

    body: Mapping[str, Any]
    outcome: str = "ok"
    refused: bool = False
    ran: Ran | None = None
    statements: int = 0
    way: Way | None = None
    consistency: Consistency | None = None
    tag: str | None = None
    not_modified: bool = False


class Executor:
    """Runs operations on a schema over a reader."""

    def __init__(
        self,
        schema: GraphQLSchema,
        reader: Reader,
        *,
        documents: Documents,
        topics: tuple[str, ...],
        sizes: PageSizes,
        count_cap: int,
        movements: Movements,
        routes: Routes | None = None,
        budgets: Budgets = UNCOUNTED,
    ) -> None:
        self.budgets = budgets
        self._movements = movements
        self._routes = routes
        self._schema = schema
        self._reader = reader
        self._documents = documents
        self._limits = documents.limits
        self._topics = topics
        self._sizes = sizes
        self._count_cap = count_cap

    def is_live(self, request: GraphQLRequest) -> bool:
        """Whether the request names a subscription; False for what cannot be run."""
        return self._documents.is_live(request.query, request.operation_name)

    def pay(self, request: GraphQLRequest, *, request_id: str) -> Answer | None:
        """Take a request's cost from its payer's budget; the refusal, if it cannot be run."""
        ran = _begun(request, request_id)
        try:
            self._paid(request, ran)
        except Exception as error:  # noqa: BLE001 - told like any other
            return _refusal(error, request_id=request_id)._replace(ran=ran)
        return None

    def cost_of(self, request: GraphQLRequest) -> int:
        """What a request that can be run costs."""
        return self._operation(request).costing.of(request.variables or {})

    async def run(self, request: GraphQLRequest, *, request_id: str) -> Answer:
        """The answer to a request; never raises but for MethodError."""
        ran = _begun(request, request_id)
        began = time.perf_counter()
        with span("operation") as told:
            answer = await self._ran(request, ran)
            ran.seconds = time.perf_counter() - began
            _tell(told, answer, ran)
        return answer._replace(ran=ran)

    async def _ran(self, request: GraphQLRequest, ran: Ran) -> Answer:
        try:
            with span("parse and validate"), ran.working():
                operation = self._paid(request, ran)
            requirement = requirement_of(
                at_least=request.at_least,
                max_staleness_ms=request.max_staleness_ms,
                topics=self._topics,
                timeout_ms=request.timeout_ms,
            )
            answer = await self._movements.until_there(
                lambda: self._tried(operation, request, requirement=requirement, ran=ran),
                at_least=requirement.at_least if operation.reads_views else None,
                timeout_s=requirement.timeout_ms / 1000,
            )
            if answer.consistency is not None:
                self._movements.saw(answer.consistency)
            return answer
        except MethodError:
            raise
        except Exception as error:  # noqa: BLE001 - the last line: nothing unexpected gets out
            return _refusal(error, request_id=ran.request_id)

    async def _tried(
        self,
        operation: Operation,
        request: GraphQLRequest,
        *,
        requirement: Requirement,
        ran: Ran,
    ) -> Answer:
        with ran.working():
            return await self._tagged(operation, request, requirement=requirement, ran=ran)

    def _paid(self, request: GraphQLRequest, ran: Ran) -> Operation:
        self.budgets.require(request.payer)
        cost = REFUSED_COST
        try:
            operation = self._operation(request, ran)
            cost = ran.cost
        finally:
            self.budgets.take(request.payer, cost)
        return operation

    def _operation(self, request: GraphQLRequest, ran: Ran | None = None) -> Operation:
        return self._documents.operation(
            request.query,
            request.operation_name,
            only_query=request.only_query,
            variables=request.variables,
            live=request.live,
            noted=None if ran is None else ran.is_of,
        )

    async def _tagged(
        self,
        operation: Operation,
        request: GraphQLRequest,
        *,
        requirement: Requirement,
        ran: Ran,
    ) -> Answer:
        """An answer with its tag; none, where the client has that one already."""
        if not request.only_query or not has_tag(operation):
            return await self._run(operation, request, requirement=requirement, ran=ran)
        if request.if_none_match is not None:
            consistency = await self._reader.read(_standing, caller=request.caller)
            require(requirement, consistency)
            known = self._tag(request, consistency)
            if matches(known, request.if_none_match):
                body = {"extensions": extensions(consistency)}
                return Answer(body=body, statements=1, tag=known, not_modified=True)
        answer = await self._run(operation, request, requirement=requirement, ran=ran)
        if answer.consistency is None or "errors" in answer.body:
            return answer
        return answer._replace(tag=self._tag(request, answer.consistency))

    def _tag(self, request: GraphQLRequest, consistency: Consistency) -> str:
        return tag(
            consistency,
            caller=request.caller,
            query=request.query,
            operation_name=request.operation_name,
            variables=request.variables,
            shaped_by=(self._sizes.default, self._sizes.most, self._count_cap),
        )

    async def _run(
        self,
        operation: Operation,
        request: GraphQLRequest,
        *,
        requirement: Requirement,
        ran: Ran,
    ) -> Answer:
        if not operation.reads_views:
            result = await self._execute(operation, request, context=None)
            return self._answer(result, request_id=ran.request_id)
        if self._routes is None:
            return await self._plain(operation, request, requirement=requirement, ran=ran)
        with span("plan"):
            way = self._routes.route(operation, request.variables or {}, request.caller)
        if isinstance(way, Compiled):
            reading = await self._reader.answer(ran.goes(way), caller=request.caller)
            require(requirement, reading.consistency)
            compiled, way = way, self._routes.checked(way, reading)
            if way is Way.COMPILED:
                try:
                    return self._compiled_answer(compiled, reading)
                except BrokenListError:
                    way = Way.BROKEN
        answer = await self._plain(operation, request, requirement=requirement, ran=ran)
        return answer._replace(way=way)

    async def _plain(
        self,
        operation: Operation,
        request: GraphQLRequest,
        *,
        requirement: Requirement,
        ran: Ran,
    ) -> Answer:
        async def work(snapshot: Snapshot) -> Answer:
            require(requirement, snapshot.consistency)
            batches = Batches(snapshot, count_cap=self._count_cap)
            context = Context(batches=batches, sizes=self._sizes)
            result = await self._execute(operation, request, context=context)
            return self._answer(result, request_id=ran.request_id, snapshot=snapshot)

        return await self._reader.read(work, caller=request.caller)

    async def _execute(
        self, operation: Operation, request: GraphQLRequest, *, context: Context | None
    ) -> ExecutionResult:
        outcome = execute(
            self._schema,
            operation.document,
            context_value=context,
            variable_values=dict(request.variables or {}),
            operation_name=operation.name,
            hide_suggestions=True,
        )
        result = outcome if isinstance(outcome, ExecutionResult) else await outcome
        _raise_if_whole(result)
        return result

    def _answer(
        self,
        result: ExecutionResult,
        *,
        request_id: str,
        snapshot: Snapshot | None = None,
    ) -> Answer:
        if result.data is None and all(error.path is None for error in result.errors or ()):
            # Nothing ran: the variables do not fit their types.
            return refused([with_code(error, "BAD_USER_INPUT") for error in result.errors or ()])
        errors = [_shown(error, request_id) for error in result.errors or ()]
        data = orjson.dumps(result.data)
        self._limits.require_result(len(data) + (len(orjson.dumps(errors)) if errors else 0))
        body: dict[str, Any] = {"data": orjson.Fragment(data)}
        if errors:
            body = {"errors": errors, **body}
        if snapshot is not None:
            body["extensions"] = extensions(snapshot.consistency)
        return Answer(
            body=body,
            outcome=str(errors[0]["extensions"]["code"]) if errors else "ok",
            statements=snapshot.statements if snapshot else 0,
            consistency=snapshot.consistency if snapshot else None,
        )

    def _compiled_answer(self, compiled: Compiled, reading: Reading) -> Answer:
        # Before it is in memory once more; and afterwards, because opaque texts are longer.
        self._limits.require_result(sum(len(text) for text in reading.texts if text))
        data = spliced(compiled, reading.texts, reading.consistency)
        self._limits.require_result(len(data))
        return Answer(
            body={"data": orjson.Fragment(data), "extensions": extensions(reading.consistency)},
            statements=1,
            way=Way.COMPILED,
            consistency=reading.consistency,
        )


def _begun(request: GraphQLRequest, request_id: str) -> Ran:
    role = (request.caller or OPERATOR).role
    return Ran(document=request.query, role=role, request_id=request_id)


def _tell(told: Span, answer: Answer, ran: Ran) -> None:
    if told.trace_id is None:
        return
    told.tell(
        graphql__operation__name=ran.name,
        graphql__operation__type=ran.kind,
        viewkeeper__document=ran.document_hash,
        viewkeeper__outcome=answer.outcome,
        viewkeeper__cost=ran.cost,
        viewkeeper__role=ran.role,
    )


async def _standing(snapshot: Snapshot) -> Consistency:
    return snapshot.consistency


def refused(errors: list[dict[str, Any]]) -> Answer:
    """An answer without data."""
    code = str(errors[0]["extensions"]["code"])
    return Answer(body={"errors": errors}, outcome=code, refused=True)


def _refusal(error: Exception, *, request_id: str) -> Answer:
    match error:
        case RefusedError():
            return refused(error.errors)
        case ApiError():
            return refused([refusal_of(error)])
    _log.error("an operation failed", request_id=request_id, exc_info=error)
    return refused([shown(GraphQLError("", original_error=error), request_id=request_id)])


def extensions(consistency: Consistency) -> dict[str, Any]:
    """`extensions` of an answer."""
    as_of = consistency.as_of
    return {
        "consistency": {
            "position": consistency.token,
            "asOf": None if as_of is None else date_time_text(as_of),
            "lagMs": consistency.lag_ms,
            "caughtUp": consistency.caught_up,
            "build": consistency.build,
        }
    }


def _raise_if_whole(result: ExecutionResult) -> None:
    """Some causes concern the whole operation, wherever in it they were met."""
    for error in result.errors or ():
        cause = cause_of(error)
        if isinstance(cause, (BuildGoneError, *WHOLE_OPERATION)):
            raise cause


def _shown(error: GraphQLError, request_id: str) -> dict[str, Any]:
    cause = unexpected(error)
    if cause is not None:
        _log.error("a field failed", request_id=request_id, path=error.path, exc_info=cause)
    return shown(error, request_id=request_id)
