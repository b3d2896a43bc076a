"""The API as a Starlette application: routes, and what lives as long as the process."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from graphql import GraphQLSchema
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from api import events, ide, spans
from api.auth import Gate
from api.compression import Compression
from api.documents import Documents
from api.drain import Drain, Last
from api.errors import ApiError
from api.execute import Answer, Executor
from api.figures import Figures, Names, names_in
from api.http import ALLOWED_HEADERS, EXPOSED_HEADERS, Endpoint, respond
from api.live import LiveQueries
from api.metrics import CONTENT_TYPE, Metrics
from api.observe import Observed
from api.page import PageSizes
from api.proxies import Proxies
from api.read import RETRY_AFTER_S, Observe, Reader, ReaderOptions, ignore
from api.route import Routes
from api.schema import SCHEMA, TYPES, sdl
from api.settings import ApiSettings
from api.sockets import Sockets
from api.waiting import Movements
from views import CATALOGUE
from views.ddl import build_number

_log = structlog.get_logger(__name__)

_GRAPHQL: Final = "/graphql"
_METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the routes work with."""

    settings: ApiSettings
    reader: Reader
    endpoint: Endpoint
    movements: Movements
    live: LiveQueries
    sockets: Sockets
    drain: Drain
    metrics: Metrics


def create_app(settings: ApiSettings, *, observe: Observe = ignore) -> Starlette:
    """The application; it connects when it starts and may start before its database.

    `observe` hears the text of every SQL statement.
    """
    service = _service(settings, observe)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if settings.reads_as_owner:
            _log.warning("reading with the owner's login: set VIEWKEEPER_API_DATABASE_URL")
        if settings.api_traces:
            spans.switch_on(spans.exported())
        sampling = asyncio.create_task(service.metrics.keep_sampled())
        await service.reader.open()
        await service.reader.await_database()
        await service.movements.start()
        service.drain.listen()
        _log.info("serving", pid=os.getpid())
        try:
            yield
        finally:
            await service.sockets.goodbye()
            await service.live.stop()
            await service.movements.stop()
            await service.reader.close()
            sampling.cancel()
            spans.switch_off()
            _log.info("ended", pid=os.getpid())

    graphql = _GraphQL(service)
    app = Starlette(
        routes=[
            Route(_GRAPHQL, graphql, methods=_METHODS),
            WebSocketRoute(_GRAPHQL, _socket),
            Route("/healthz", _healthz),
            Route("/readyz", _readyz),
            Route("/metrics", _metrics),
            Route("/schema.graphql", _schema),
            *(ide.routes() if settings.ide else ()),
        ],
        middleware=[
            *_proxies([str(each) for each in settings.api_trusted_proxies]),
            Middleware(Last, drain=service.drain),
            Middleware(Observed, metrics=service.metrics, log_all=settings.api_log_requests),
            *_cors(settings.api_origins),
            *_compression(settings.api_compress_bytes),
            Middleware(_Straight, graphql=graphql),
        ],
        lifespan=lifespan,
    )
    app.state.service = service
    return app


def _proxies(trusted: list[str]) -> list[Middleware]:
    return [Middleware(Proxies, trusted=trusted)] if trusted else []


def _cors(origins: Sequence[str]) -> list[Middleware]:
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
            max_age=600,
        )
    ]


def _compression(least_bytes: int) -> list[Middleware]:
    return [Middleware(Compression, least_bytes=least_bytes)] if least_bytes else []


def _service(settings: ApiSettings, observe: Observe) -> Service:
    metrics = Metrics()
    rules = settings.token_rules
    reader = Reader(
        ReaderOptions(
            dsn=settings.dsn,
            topics=CATALOGUE.topics,
            connections=settings.api_connections,
            acquire_timeout_s=settings.api_acquire_timeout_s,
            statement_timeout_s=settings.api_statement_timeout_s,
            guarded=rules is not None,
            pooled=settings.api_pooler is not None,
            strong_login=settings.strong_login,
        ),
        observe=observe,
    )
    movements = Movements(settings.notify_dsn, reader.standing)
    schema = graphql_schema()
    sizes = PageSizes(settings.api_page_default, settings.api_page_most)
    executor = Executor(
        schema,
        reader,
        documents=Documents(
            schema,
            introspection=settings.introspection,
            limits=settings.limits,
            sizes=sizes,
        ),
        topics=CATALOGUE.topics,
        sizes=sizes,
        count_cap=settings.api_count_cap,
        movements=movements,
        routes=Routes(schema, TYPES, sizes=sizes, count_cap=settings.api_count_cap),
        budgets=settings.budgets,
    )
    trusted = settings.trusted_documents
    figures = Figures(
        metrics,
        Names(None if trusted is None else names_in(trusted.values())),
        slow_s=settings.api_slow_operation_ms / 1000,
    )
    endpoint = Endpoint(
        executor=executor,
        figures=figures,
        limits=settings.limits,
        persisted=settings.persisted,
        places=settings.places,
        gate=Gate(rules) if rules else None,
        get_needs_preflight=settings.api_get_needs_preflight,
    )
    # Half of the connections: live queries never crowd out the others.
    at_once = max(settings.api_connections // 2, 1)
    live = LiveQueries(executor, movements, figures, at_once=at_once)
    sockets = Sockets(endpoint, live, origins=tuple(settings.api_origins))
    metrics.follow(
        metrics.build, lambda: build_number(reader.build) if reader.build is not None else 0
    )
    metrics.follow(metrics.sockets, lambda: len(sockets.open))
    metrics.follow(metrics.live_followers, lambda: live.followers)
    metrics.follow(metrics.live_queries, lambda: live.computed)
    metrics.follow(metrics.waiting, lambda: movements.waiting)
    metrics.follow(metrics.connections_used, lambda: reader.used)
    metrics.follow(metrics.connections_waited_for, lambda: reader.waited_for)

    async def goodbye() -> None:
        await sockets.goodbye()
        live.end()

    return Service(
        settings=settings,
        reader=reader,
        endpoint=endpoint,
        live=live,
        sockets=sockets,
        drain=Drain(goodbye, pause_s=settings.api_drain_s),
        movements=movements,
        metrics=metrics,
    )


def graphql_schema() -> GraphQLSchema:
    """What Strawberry made of the declarations, as graphql-core executes it."""
    schema: GraphQLSchema = SCHEMA._schema
    return schema


class _GraphQL:
    """The endpoint, as an ASGI application: Starlette has less to do around it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        response = await _graphql(Request(scope, receive), self._service)
        await response(scope, receive, send)


class _Straight:
    """Leads to the endpoint past the router and what is around it: six calls for each request."""

    def __init__(self, app: ASGIApp, *, graphql: _GraphQL) -> None:
        self._app = app
        self._graphql = graphql

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and scope["path"] == _GRAPHQL and scope["method"] in _METHODS:
            await self._graphql(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _graphql(request: Request, service: Service) -> Response:
    if service.settings.ide and ide.is_wanted(request):
        return ide.page()
    if events.are_wanted(request):
        return await events.respond(
            request, service.endpoint, service.live, request_id=request.state.request_id
        )
    response = await respond(
        request,
        service.endpoint,
        request_id=request.state.request_id,
    )
    answer: Answer = request.state.answer
    service.endpoint.figures.answered(answer, over="http", size=len(response.body))
    return response


async def _socket(socket: WebSocket) -> None:
    service: Service = socket.app.state.service
    await service.sockets.serve(socket, request_id=socket.state.request_id)


async def _healthz(_: Request) -> Response:
    """The process answers. Never touches the database: a restart would not mend that."""
    return JSONResponse({"healthy": True})


async def _readyz(request: Request) -> Response:
    """Whether operations would be answered now; if not, which check failed."""
    service: Service = request.app.state.service
    if service.drain.began:
        return _not_ready({"draining": "the process ends"})
    try:
        build, missing = await service.reader.live_build([each.view.name for each in TYPES])
    except ApiError as error:
        return _not_ready({"database": error.message})
    if missing:
        return _not_ready({"database": f"views not in {build} yet: {', '.join(missing)}"})
    return JSONResponse({"ready": True, "checks": {"database": "ok"}, "build": build})


def _not_ready(checks: dict[str, str]) -> Response:
    return JSONResponse(
        {"ready": False, "checks": checks},
        status_code=503,
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


async def _metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def _schema(_: Request) -> Response:
    return PlainTextResponse(sdl())
