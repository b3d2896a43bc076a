"""The demo, as somebody runs it who has just cloned the repository."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dev.cache import kafka_class_path, registry_home, say_nothing
from dev.ports import LOOPBACK, accepts
from dev.system import API_PORT, OPS_PORT
from tests.fixtures.waiting import eventually

TIMEOUT_S = 180.0
ROOT = Path(__file__).parents[3]


NO_NETWORK = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"),
    "NO_PROXY": "127.0.0.1,localhost",
}
"""Whatever is asked of another machine goes to where nobody listens."""


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "demo", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
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
def ports_taken() -> Iterator[None]:
    """Somebody listens on the ports of API and worker: this test, if nobody else does."""
    with ExitStack() as listeners:
        for port in (API_PORT, OPS_PORT):
            if not accepts(port):
                listeners.enter_context(socket.create_server((LOOPBACK, port)))
        yield


@pytest.fixture
def downloaded() -> None:
    """What an earlier run has left behind."""
    kafka_class_path(say_nothing)
    registry_home(say_nothing)


@pytest.mark.usefixtures("ports_taken", "downloaded")
def test_a_later_demo_needs_no_network_answers_beside_taken_ports_and_stops_by_itself() -> None:
    process = start("--seconds", "1", **NO_NETWORK)
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert re.search(rf"port {API_PORT} is taken: the API uses \d+", output)
    assert re.search(rf"port {OPS_PORT} is taken: the worker uses \d+", output)
    assert "downloading" not in output
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


def test_a_first_demo_without_network_says_what_it_lacks(tmp_path: Path) -> None:
    process = start("--seconds", "1", **NO_NETWORK, VIEWKEEPER_CACHE_DIR=str(tmp_path))
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 1, output
    assert "could not be downloaded" in output
    assert "VIEWKEEPER_CACHE_DIR" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("when", ["PostgreSQL is ready", "events/s"])
def test_ctrl_c_at_any_time_leaves_nothing_running(demo: subprocess.Popen[str], when: str) -> None:
    read_to(demo, when)
    children = children_of(demo)
    assert len(children) >= 2
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 0, output
    assert "nothing is left running" in output
    # What was still being started ends by the kernel's signal when the demo is gone.
    eventually(lambda: not any(child.exists() for child in children), 10, "every child is gone")
