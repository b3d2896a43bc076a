"""A copy of the checkout that a walk changes, and the product run from it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from dev.ports import free_port
from tests.fixtures.databases import REPOSITORY, Database
from tests.fixtures.waiting import eventually
from tests.fixtures.walks import Walk

TIMEOUT_S: Final = 120.0
ROOMS: Final = ("api", "cli", "dev", "ingest", "migrations", "rebuild", "schemas", "views")
FILES: Final = ("alembic.ini", "pyproject.toml")


class Checkout:
    """A copy of the rooms, and the settings that its programs run with."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        for name in ROOMS:
            shutil.copytree(REPOSITORY / name, folder / name)
        for name in FILES:
            shutil.copy(REPOSITORY / name, folder / name)
        inherited = {n: v for n, v in os.environ.items() if not n.startswith("VIEWKEEPER_")}
        self._environment = {
            **inherited,
            **settings,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),  # before what is installed
        }

    def shell(self, commands: str) -> str:
        """Run commands as a person would, in this folder; what they printed."""
        return self._run(["bash", "-euo", "pipefail", "-c", commands])

    def viewkeeper(self, *arguments: str) -> str:
        """A command of the product; what it answered."""
        return self._run([sys.executable, "-m", "cli.main", *arguments])

    def follow(self, walk: Walk) -> None:
        """Every step of a walk in its order: files, lines and commands."""
        for block in walk.blocks:
            if block.is_edit:
                block.apply(self.folder)
            elif block.language == "sh":
                self.shell(block.text)

    def produce(self, *arguments: str) -> str:
        """Produce, and the position reached."""
        made = json.loads(self.viewkeeper("produce", *arguments, "--json"))
        return str(made["position"])

    @contextmanager
    def api(self, database: Database) -> Iterator[httpx.Client]:
        """The API of this folder with the login that may only read."""
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "api", "--port", str(port)],
            cwd=self.folder,
            env={**self._environment, "VIEWKEEPER_API_DATABASE_URL": database.api_dsn},
            stderr=subprocess.DEVNULL,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S) as client:
                eventually(lambda: _ready(client), TIMEOUT_S, "the API is ready")
                yield client
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """A command of the product that goes on until it is ended."""
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=self.folder,
            env=self._environment,
            stderr=subprocess.DEVNULL,
        )

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


def ask(client: httpx.Client, query: str) -> Any:
    """The data of a query."""
    answer = client.post("/graphql", json={"query": query}).json()
    assert "errors" not in answer, answer
    return answer["data"]


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
