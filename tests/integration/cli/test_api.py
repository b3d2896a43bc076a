"""The API as a process: it starts before its database and ends when it is told to."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.fixtures.databases import Database
from tests.fixtures.waiting import eventually

TIMEOUT_S = 60.0


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_an_api_asked_to_stop_leaves_with_code_0(workers: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "api", "--workers", str(workers), "--port", "0"],
        env={
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "VIEWKEEPER_API_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/away",
        },
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        # The port that was found is told, not the 0.
        said = process.stderr.readline()
        found = re.fullmatch(r"GraphQL at http://127\.0\.0\.1:([1-9]\d*)/graphql\n", said)
        assert found, said
        port = int(found[1])
        eventually(lambda: healthy(port), TIMEOUT_S, "the API serves without its database")
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=TIMEOUT_S)[1]
    finally:
        process.kill()
    assert process.returncode == 0, said


def test_with_tokens_a_login_that_no_policy_binds_is_refused_at_start(
    database: Database, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "cli.main", "api", "--port", "0"],
        env={
            "VIEWKEEPER_API_DATABASE_URL": database.dsn,
            "VIEWKEEPER_API_JWT_SECRET": "a secret of more than thirty-two bytes, for tests",
            "VIEWKEEPER_API_JWT_AUDIENCE": "views",
            "VIEWKEEPER_API_JWT_ISSUER": "https://login.example",
        },
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S * 2,
    )
    assert ended.returncode == 2
    assert "owns the views' tables" in ended.stderr
    assert "VIEWKEEPER_API_DATABASE_URL" in ended.stderr
