"""`viewkeeper schemas`: putting the event contracts into force at the registry."""

from dataclasses import asdict
from typing import Annotated

import typer

from cli.misuse import CommandError
from cli.settings import RegistrySettings
from cli.terminal import answer, answer_json, answer_table, table
from schemas import contracts, register
from schemas.register import InForce
from schemas.registry import Registry
from views import CATALOGUE
from views.model import Stream

app = typer.Typer(no_args_is_help=True, help="The event contracts and the registry.")

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command("register")
def register_(as_json: AsJson = False) -> None:
    """Register every contract (again is harmless), set its subject to FULL and read that back."""
    loaded = _contracts()
    with RegistrySettings.model_validate({}).registry() as registry:
        done = register_all(registry, loaded)
    if as_json:
        answer_json([asdict(entry) for entry in done])
        return
    shown = table("subject", "version", "id", "compatibility", "", right=("version", "id"))
    for entry in done:
        note = "new" if entry.new else "was there"
        shown.add_row(
            entry.subject, str(entry.version), str(entry.schema_id), entry.compatibility, note
        )
    answer_table(shown)


@app.command()
def check() -> None:
    """Check the files, and ask the registry whether each may follow the current version."""
    loaded = _contracts()
    refused: list[str] = []
    with RegistrySettings.model_validate({}).registry() as registry:
        for stream, contract in loaded:
            verdict = register.check(registry, topic=stream.topic, contract=contract)
            words = "; ".join(verdict.messages) or "the registry gives no reason"
            if verdict.compatible:
                answer(f"{contract.name}: may be registered")
            else:
                refused.append(f"{contract.name}: may not follow the current version: {words}")
    if refused:
        raise CommandError("\n".join(refused))


def register_all(
    registry: Registry, loaded: list[tuple[Stream, contracts.Contract]]
) -> list[InForce]:
    """Register the contract of every stream."""
    return [
        register.register(registry, topic=stream.topic, contract=contract)
        for stream, contract in loaded
    ]


def _contracts() -> list[tuple[Stream, contracts.Contract]]:
    """The contract of every stream; all files are checked first, so nothing is half registered."""
    contracts.load_all()
    return [(stream, contracts.load(stream.contract)) for stream in CATALOGUE.streams]
