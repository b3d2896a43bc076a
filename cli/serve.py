"""`viewkeeper api`: the service that answers queries."""

import socket
from typing import Annotated

import typer
import uvicorn
from starlette.applications import Starlette

from api.app import create_app
from api.settings import ApiSettings
from api.sockets import MOST_FRAME_BYTES
from cli.logs import log_to_stderr
from cli.misuse import CommandError
from cli.stopping import stop_signal
from cli.terminal import say

SHUTDOWN_S = 10


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
    _raise_if_taken(at_host, at_port)
    say(f"GraphQL at http://{at_host}:{at_port}/graphql")
    # uvicorn raises the signal again after its shutdown; heard here, the exit code is 0.
    with stop_signal():
        uvicorn.run(
            "cli.serve:make_app",
            factory=True,
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
            ws_max_size=MOST_FRAME_BYTES,
        )


def make_app() -> Starlette:
    """The application of one API process; each reads the settings by itself."""
    log_to_stderr()
    return create_app(ApiSettings.model_validate({}))


def _raise_if_taken(host: str, port: int) -> None:
    """uvicorn would say it in its log and end with a code of its own."""
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
