"""The system in containers, where a Docker engine answers."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.containers import engine_answers

ROOT = Path(__file__).parents[3]
PROJECT = "viewkeeper-test"
UP_TIMEOUT_S = 900

needs_engine = pytest.mark.skipif(
    not engine_answers() or shutil.which("docker") is None,
    reason="no Docker engine answers here; tests/unit/deploy checks the same files without one",
)


def compose(*arguments: str) -> str:
    """Run `docker compose`; its output."""
    command = ["docker", "compose", "--project-name", PROJECT, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=UP_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def system() -> Iterator[None]:
    """The whole system, built and up; removed with its volumes."""
    try:
        compose("up", "--build", "--wait", "--detach")
        yield
    finally:
        compose("down", "--volumes", "--remove-orphans")


@needs_engine
@pytest.mark.timeout(2 * UP_TIMEOUT_S)
@pytest.mark.usefixtures("system")
def test_the_composed_system_takes_events_and_answers() -> None:
    position = compose("exec", "-T", "ingest", "viewkeeper", "produce", "--orders", "20").strip()
    assert position.startswith("orders:")
    query = json.dumps({"query": "{ position { token } }"}).encode()
    request = urllib.request.Request(
        "http://127.0.0.1:8000/graphql", query, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert "errors" not in json.load(answer)
    assert "root" not in compose("exec", "-T", "api", "id")
