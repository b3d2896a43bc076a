"""The operator at a ground: `viewkeeper ...` in this process, with the settings of its workers.

Stands apart because the remedies that a refusal names must work as they are written.
"""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner

from cli.main import app
from tests.faults.harness.ground import Ground


def command(ground: Ground, *arguments: str, code: int = 0) -> str:
    """Run it, straight to the servers; what it printed. AssertionError: another exit code."""
    place = ground.place
    environment = {
        "VIEWKEEPER_DATABASE_URL": place.dsn,
        "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": place.bootstrap,
        "VIEWKEEPER_SCHEMA_REGISTRY_URL": place.registry_url,
        "VIEWKEEPER_GROUP_ID": place.group,
    }
    result = CliRunner().invoke(app, list(arguments), env=environment)
    assert result.exit_code == code, f"{arguments}: {result.output}\n{result.exception!r}"
    return result.stdout


def answer(ground: Ground, *arguments: str) -> Any:
    """The same with `--json`, read."""
    return json.loads(command(ground, *arguments, "--json"))
