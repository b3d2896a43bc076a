"""`viewkeeper api`: the service that answers queries."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Annotated, Final

import typer
import uvicorn
from starlette.applications import Starlette

from api.app import create_app
from api.login import problem_of
from api.metrics import SHARED_FOLDER
from api.settings import ApiSettings
from api.sockets import MOST_FRAME_BYTES
from cli.connections import KeptProtocol
from cli.logs import log_to_stderr
from cli.misuse import CommandError, UsageError
from cli.stopping import stop_signal
from cli.terminal import say

SHUTDOWN_S: Final = 16
"""The longest operation waits 10 s for events, and then reads for 5."""
START_S: Final = 60
"""How long a new worker may take until it serves; uvicorn's 5 s are short on a busy machine."""


def api(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 1,
    host: Annotated[str | None, typer.Option(help="Overrides VIEWKEEPER_API_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Overrides VIEWKEEPER_API_PORT.")
    ] = None,
) -> None:
    """Serve the views over GraphQL at /graphql."""
    log_to_stderr()
    settings = ApiSettings.model_validate({})
    at_host, at_port = host or settings.api_host, settings.api_port if port is None else port
    _raise_if_login_is_too_strong(settings)
    at_port = _free(at_host, at_port)
    say(f"GraphQL at http://{at_host}:{at_port}/graphql")
    # uvicorn raises the signal again after its shutdown; heard here, the exit code is 0.
    with stop_signal(), _shared_figures(workers):
        _end_at_hang_up()
        uvicorn.run(
            "cli.serve:make_app",
            factory=True,
            http=KeptProtocol,
            host=at_host,
            port=at_port,
            workers=workers,
            access_log=False,
            log_config=None,
            server_header=False,
            # The application believes the proxies of the settings; the server would believe any
            # process of its own machine.
            proxy_headers=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
            timeout_worker_healthcheck=START_S,
            ws_max_size=MOST_FRAME_BYTES,
        )


def make_app() -> Starlette:
    """The application of one API process; each reads the settings by itself."""
    log_to_stderr()
    if multiprocessing.parent_process() is not None:
        # It restarts the workers one by one; a signal to all of them must not end all at once.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return create_app(ApiSettings.model_validate({}))


def _end_at_hang_up() -> None:
    """SIGHUP without workers, of which uvicorn would restart one by one: end as on SIGTERM."""

    def end(_: int, __: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)

    # Under nohup it stays unheard.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, end)


def _raise_if_login_is_too_strong(settings: ApiSettings) -> None:
    """Each connection is asked again; here the answer ends the command, with a sentence."""
    if settings.strong_login == "refused" and (problem := problem_of(settings.dsn)) is not None:
        raise UsageError(problem)


@contextmanager
def _shared_figures(workers: int) -> Iterator[None]:
    """Whichever process a scrape meets tells of all: their figures meet in a folder."""
    if workers == 1:
        yield
        return
    with TemporaryDirectory(prefix="viewkeeper-figures-") as folder:
        os.environ[SHARED_FOLDER] = folder
        yield


def _free(host: str, port: int) -> int:
    """The port, or a free one for 0. If it is taken uvicorn would end with a code of its own."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"{host}:{port} cannot be listened on: {error.strerror}. "
                "Choose another with VIEWKEEPER_API_PORT or --port."
            ) from error
        found: int = probe.getsockname()[1]
        return found
