"""The demo, as somebody runs it who has just cloned the repository."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.ports import accepts
from tests.fixtures.waiting import eventually

TIMEOUT_S = 180.0
ROOT = Path(__file__).parents[3]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "demo", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def demo() -> Iterator[subprocess.Popen[str]]:
    """A demo without an end, ended by the test or after it."""
    process = start()
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def read_to(process: subprocess.Popen[str], wanted: str) -> str:
    """The output up to the line that contains `wanted`."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if wanted in line:
            return "".join(lines)
    raise AssertionError(f"the demo ended before it said {wanted!r}:\n{''.join(lines)}")


def children_of(process: subprocess.Popen[str]) -> set[Path]:
    """The servers and services that a demo has started, by their folders in /proc."""
    lists = Path(f"/proc/{process.pid}/task").glob("*/children")
    return {Path("/proc") / pid for each in lists for pid in each.read_text().split()}


@pytest.fixture
def port_8000_taken() -> Iterator[None]:
    """Somebody listens on the API's port: this test, if nobody else does."""
    with socket.socket() as listener:
        if not accepts(8000):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", 8000))
            listener.listen()
        yield


@pytest.mark.usefixtures("port_8000_taken")
def test_the_demo_answers_its_query_beside_a_taken_port_and_stops_by_itself() -> None:
    process = start("--seconds", "1")
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert re.search(r"port 8000 is taken: the API uses \d+", output)
    shown = output.partition("and its answer")[2]
    answer = json.loads(shown[shown.index("{") : shown.index("\n}\n") + 2])
    assert "errors" not in answer
    assert answer["data"]["orders"]["nodes"][0]["status"] == "DELIVERED"
    assert answer["extensions"]["consistency"]["position"]
    assert "events/s" in output
    assert "nothing is left running" in output
    ports = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", output)}
    assert len(ports) >= 5
    assert not [port for port in ports if accepts(port)]


def test_ctrl_c_while_it_sets_up_leaves_nothing_running(demo: subprocess.Popen[str]) -> None:
    read_to(demo, "PostgreSQL is ready")
    children = children_of(demo)
    assert len(children) >= 2
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 0, output
    assert "nothing is left running" in output
    # What was still being started ends by the kernel's signal when the demo is gone.
    eventually(lambda: not any(child.exists() for child in children), 10, "every child is gone")
