"""One operation both ways, compiled and plain, over a database that stands still."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from api.app import graphql_schema
from api.callers import Caller
from api.documents import Documents
from api.execute import Answer, Executor, GraphQLRequest
from api.limits import Limits
from api.page import PageSizes
from api.read import Reader, ReaderOptions
from api.route import Compiled, Routes, Way
from api.schema import TYPES
from api.waiting import Movements
from views import CATALOGUE

SIZES = PageSizes(default=4, most=40)
COUNT_CAP = 9
LIMITS = Limits(
    document_bytes=10**6,
    tokens=10**5,
    depth=50,
    aliases=10**4,
    root_fields=100,
    directives=10**4,
    cost=10**9,
)


@dataclass(frozen=True, slots=True)
class Pair:
    """The two answers, as the bytes of `data` and of `errors`, and which way the first went."""

    compiled: bytes
    plain: bytes
    way: Way | None
    data: Any

    @property
    def same(self) -> bool:
        """Whether they agree to the byte."""
        return self.compiled == self.plain


class Both:
    """Two executors on one reader. `statements` counts those of the compiled one's last answer."""

    def __init__(self, dsn: str) -> None:
        schema = graphql_schema()
        self._heard: list[str] = []
        # Patient, so that a busy machine is not taken for a server that is away.
        options = ReaderOptions(
            dsn=dsn,
            topics=CATALOGUE.topics,
            connections=2,
            acquire_timeout_s=60,
            statement_timeout_s=60,
        )
        self._reader = Reader(options, observe=self._heard.append)
        documents = self._documents = Documents(
            schema, introspection=True, limits=LIMITS, sizes=SIZES
        )
        self.routes = Routes(schema, TYPES, sizes=SIZES, count_cap=COUNT_CAP)

        def executor(routes: Routes | None) -> Executor:
            return Executor(
                schema,
                self._reader,
                documents=documents,
                topics=CATALOGUE.topics,
                sizes=SIZES,
                count_cap=COUNT_CAP,
                movements=Movements(dsn, _never),
                routes=routes,
            )

        self._compiled, self._plain = executor(self.routes), executor(None)
        self._runner = asyncio.Runner()
        self._runner.run(self._reader.open())

    def close(self) -> None:
        """Give everything back."""
        self._runner.run(self._reader.close())
        self._runner.close()

    @property
    def statements(self) -> int:
        """SQL statements of the last compiled answer."""
        return len(self._heard)

    def ask(
        self,
        query: str,
        variables: Mapping[str, Any] | None = None,
        caller: Caller | None = None,
        *,
        name: str | None = None,
    ) -> Pair:
        """Both answers."""
        request = GraphQLRequest(
            query=query, variables=variables, operation_name=name, caller=caller, timeout_ms=0
        )
        return self._runner.run(self._ask(request))

    def statement(self, query: str, variables: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The compiled statement on the first build, and its values."""
        operation = self._documents.operation(query, None, only_query=True, variables=variables)
        compiled = self.routes.route(operation, variables, None)
        assert isinstance(compiled, Compiled)
        return compiled.statement("build_1")

    async def _ask(self, request: GraphQLRequest) -> Pair:
        plain = await self._plain.run(request, request_id="same")
        self._heard.clear()
        compiled = await self._compiled.run(request, request_id="same")
        return Pair(_bytes(compiled), _bytes(plain), compiled.way, _data(plain))


def _bytes(answer: Answer) -> bytes:
    # The resolvers tell errors as they meet them: in which order is up to the event loop.
    errors = sorted(map(orjson.dumps, answer.body.get("errors", ())))
    told = [answer.body.get("data"), [orjson.Fragment(each) for each in errors], answer.refused]
    return orjson.dumps(told)


def _data(answer: Answer) -> Any:
    return orjson.loads(orjson.dumps(answer.body.get("data")))


async def _never() -> Any:
    raise AssertionError("nobody waits here")


@contextmanager
def both_ways(dsn: str) -> Iterator[Both]:
    """Both executors, for as long as the block lasts."""
    both = Both(dsn)
    try:
        yield both
    finally:
        both.close()
