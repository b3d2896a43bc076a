"""The worker's ops port: `/healthz`, `/readyz`, `/metrics`, on a thread of its own.

Stands apart so that a worker that waits for its database still answers why.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ingest.errors import RefusedError
from ingest.metrics import METRICS, REGISTRY
from ingest.status import Status


def ops_app(status: Status) -> Starlette:
    """The three pages. `/readyz` answers 503 with every reason while the worker is not ready."""

    def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(_request: Request) -> Response:
        problems = status.problems()
        body = {
            "ready": not problems,
            "problems": problems,
            "partitions": status.owned,
            "builds": [asdict(build) for build in status.builds],
        }
        return JSONResponse(body, status_code=503 if problems else 200)

    def metrics(_request: Request) -> Response:
        METRICS.ready.set(0 if status.problems() else 1)
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )


@contextmanager
def ops_server(status: Status, *, host: str, port: int) -> Iterator[int]:
    """Serve while inside; gives the port, which is a free one where 0 was asked for.

    RefusedError: the address is taken or not ours.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise RefusedError(
            f"the ops port {host}:{port} can't be opened ({error.strerror}): set"
            " VIEWKEEPER_OPS_PORT to a free port, or to 0 for any"
        ) from error
    server = uvicorn.Server(
        uvicorn.Config(ops_app(status), log_level="warning", lifespan="off", access_log=False)
    )
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="ops", daemon=True
    )
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(timeout=5)
        listener.close()
