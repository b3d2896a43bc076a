"""Who brings background servers up, and who ends them, whatever the other is just doing."""

import fcntl
import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import IO

import pytest
from typer.testing import CliRunner

from cli.main import app
from dev import background
from dev.background import NotUpError, Status
from dev.cache import Say

# Holds the lock, says so, and tells who it is only when it is asked to.
SUPERVISOR = """
import fcntl, os, sys
lock = open(sys.argv[1], "a+")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
lock.write(str(os.getpid()))
lock.flush()
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the state lies: a checkout of its own."""
    monkeypatch.chdir(tmp_path)
    background.state_dir().mkdir(parents=True)
    return background.state_dir()


def test_down_during_a_start_waits_until_it_knows_whom_to_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()
    monkeypatch.setattr("dev.background.time.sleep", lambda _s: looked.set())
    command = [sys.executable, "-c", SUPERVISOR, str(folder / "supervisor.lock")]
    with (
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as starting,
        ThreadPoolExecutor(1) as pool,
    ):
        assert starting.stdout is not None
        assert starting.stdin is not None
        assert starting.stdout.readline() == "held\n"
        ended = pool.submit(background.down)
        assert looked.wait(30), "it did not look for the one who starts"
        starting.stdin.write("\n")
        starting.stdin.flush()
        assert ended.result(60) is True
        assert starting.wait(30) == -signal.SIGTERM


def test_the_id_of_a_supervisor_of_earlier_is_nobodys(folder: Path) -> None:
    (folder / "supervisor.lock").write_text("1")
    assert background.down() is False


def test_two_who_bring_servers_up_at_once_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[IO[str]] = []

    def start(brokers: int, _say: Say) -> Status:
        held.append((background.state_dir() / "supervisor.lock").open("a+"))
        fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        running = Status(1, brokers, {})
        (background.state_dir() / "state.json").write_text(json.dumps(asdict(running)))
        return running

    monkeypatch.setattr(background, "_started", start)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _n: background.up(), range(2))
    assert first == second
    assert len(held) == 1
    with pytest.raises(NotUpError, match="dev down` first"):
        background.up(brokers=3)
    held[0].close()


def test_nothing_up_is_told_by_every_command() -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["dev", *arguments])
        return done.exit_code, done.output.strip()

    assert run("down") == (0, "nothing was up")
    assert run("status") == (1, "down")
    assert run("env") == (1, "no servers are up: run `viewkeeper dev up`")


def test_two_brokers_are_refused() -> None:
    done = CliRunner().invoke(app, ["dev", "up", "--brokers", "2"])
    assert done.exit_code == 2
    assert "1 or 3" in done.stderr
