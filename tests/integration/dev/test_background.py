"""Servers in the background, as somebody uses them who develops against them."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from cli.main import app
from dev import background
from dev.cache import CACHE_VARIABLE, cache_dir
from dev.ports import accepts
from tests.fixtures.waiting import eventually

_S = 180.0


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A checkout of its own with the downloads of this one; nothing is left up."""
    monkeypatch.setenv(CACHE_VARIABLE, str(cache_dir()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".viewkeeper").mkdir()
    yield
    background.down()


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["dev", *arguments])
    assert done.exit_code == code, done.output
    return done.output.strip()


def settings() -> dict[str, str]:
    """What `eval "$(viewkeeper dev env)"` sets."""
    words = [shlex.split(line)[1] for line in run("env").splitlines()]
    return dict(word.split("=", 1) for word in words)


def test_servers_come_up_serve_any_tool_and_go() -> None:
    up = run("up")
    assert up.rpartition("\n")[2] == run("up")
    assert run("status").endswith("1 broker(s)")
    assert "dev down` first" in run("up", "--brokers", "3", code=1)
    environment = settings()
    topics = subprocess.run(
        [sys.executable, "-m", "cli.main", "dev", "topics"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=_S,
        check=True,
    )
    assert topics.stdout.strip() == "created: orders, payments"
    with psycopg.connect(environment["VIEWKEEPER_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    port = int(environment["VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS"].rpartition(":")[2])
    assert accepts(port)
    assert run("down") == "down"
    assert not accepts(port)
    assert run("down") == "nothing was up"
    assert run("status", code=1) == "down"


def test_servers_that_still_start_can_be_told_to_go() -> None:
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(background.up)
        eventually(lambda: (background.state_dir() / "supervisor.lock").exists(), _S, "a start")
        assert background.down() is True
        with pytest.raises(background.NotUpError):
            coming.result(_S)
    assert background.status() is None
