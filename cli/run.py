"""`viewkeeper ingest`: the worker."""

from typing import Annotated

import typer

from cli.logs import log_to_stderr
from cli.misuse import CommandError
from cli.stopping import stop_signal
from cli.topics import known_topic
from ingest import service
from ingest.settings import IngestSettings
from views.positions import parse_position


def ingest(
    until: Annotated[
        str | None,
        typer.Option(metavar="POSITION", help="Stop exactly there: topic:partition:offset,..."),
    ] = None,
) -> None:
    """Run a worker: apply events until Ctrl-C or SIGTERM, which finish the batch in hand."""
    log_to_stderr()
    settings = IngestSettings.model_validate({})
    position = None if until is None else parse_position(until)
    for topic in position.topics() if position else ():
        known_topic(topic)
    with stop_signal() as stop:
        reached = service.run(settings, until=position, stop=stop)
    if not reached:
        raise CommandError(f"stopped before {until} was reached; nothing is lost")
