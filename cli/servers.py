"""`viewkeeper dev`: embedded servers in the background, for development and for trying things."""

from typing import Annotated

import typer
from confluent_kafka.admin import AdminClient

from cli.misuse import CommandError, UsageError
from cli.settings import KafkaSettings
from cli.terminal import OUT, answer, say
from dev import background
from dev.system import create_topics

app = typer.Typer(no_args_is_help=True, help="PostgreSQL, Kafka and a registry without Docker.")


@app.command()
def up(
    brokers: Annotated[int, typer.Option(min=1, max=3, help="Kafka brokers: 1 or 3.")] = 1,
) -> None:
    """Start the servers in the background; at once if they are up."""
    if brokers == 2:
        raise UsageError("--brokers is 1 or 3: of two, neither can be missed")
    try:
        running = background.up(brokers=brokers, say=say)
    except background.NotUpError as error:
        raise CommandError(str(error)) from error
    answer(f'up (pid {running.pid}); point any tool at them with: eval "$(viewkeeper dev env)"')


@app.command()
def down() -> None:
    """Stop the servers and remove their data."""
    try:
        stopped = background.down()
    except background.NotUpError as error:
        raise CommandError(str(error)) from error
    answer("down" if stopped else "nothing was up")


@app.command()
def status() -> None:
    """Say whether the servers are up. Exit code 1: they are not."""
    running = background.status()
    if running is None:
        raise CommandError("down")
    answer(f"up (pid {running.pid}), {running.brokers} broker(s)")


@app.command()
def env() -> None:
    """Print the settings of the servers that are up, for `eval` in a shell."""
    try:
        lines = background.env()
    except background.NotUpError as error:
        raise CommandError(str(error)) from error
    OUT.print(lines, end="", markup=False, soft_wrap=True)


@app.command()
def topics() -> None:
    """Create the catalogue's topics that the broker of the settings lacks, kept for ever."""
    options = KafkaSettings.model_validate({}).client_options()
    made = create_topics(AdminClient({"log_level": "0", **options}))
    answer(f"created: {', '.join(made)}" if made else "every topic is there")
