"""SIGTERM: not ready, answers meanwhile, sockets closed with 1001, streams ended, exit code 0."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from dev.ports import LOOPBACK, free_port
from tests.fixtures.databases import Database
from tests.fixtures.waiting import PATIENCE_S, eventually
from tests.integration.api.test_live import ORDER

QUERY = {"query": "{ position { build } }"}


@pytest.fixture
def served(database: Database, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`viewkeeper api` as a process, and its address."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "VIEWKEEPER_API_DATABASE_URL": database.api_dsn,
        "VIEWKEEPER_API_DRAIN_S": "5",
    }
    program = Path(sys.executable).parent / "viewkeeper"
    command = [str(program), "api", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT
        )
    address = f"http://{LOOPBACK}:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/readyz").status_code == 200
        except httpx.TransportError:
            assert process.poll() is None, (tmp_path / "log").read_text()
            return False

    try:
        eventually(answers, PATIENCE_S, "the API is ready")
        yield process, address
    finally:
        process.kill()
        process.wait()


def test_a_process_that_is_told_to_end_lets_everybody_go(
    served: tuple[subprocess.Popen[bytes], str],
) -> None:
    process, address = served
    with connect(
        f"{address.replace('http', 'ws')}/graphql",
        subprotocols=[Subprotocol("graphql-transport-ws")],
    ) as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(socket.recv(10)) == {"type": "connection_ack"}
        payload = {"query": ORDER}
        socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
        assert json.loads(socket.recv(10))["type"] == "next"
        accept = {"Accept": "text/event-stream"}
        with (
            httpx.Client(timeout=20) as client,
            client.stream("POST", f"{address}/graphql", json=payload, headers=accept) as stream,
        ):
            lines = stream.iter_lines()
            assert next(lines) == "event: next"
            process.send_signal(signal.SIGTERM)
            eventually(
                lambda: httpx.get(f"{address}/readyz").status_code == 503, 5, "it is not ready"
            )
            assert "data" in httpx.post(f"{address}/graphql", json=QUERY).json()
            with pytest.raises(ConnectionClosed) as caught:
                socket.recv(10)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1001
            assert "event: complete" not in list(lines), "the client shall come again"
    assert process.wait(15) == 0
