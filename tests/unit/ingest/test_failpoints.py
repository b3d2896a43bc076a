"""Failpoints: off they do nothing, asked for they act once, asked for wrongly they are refused."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from ingest import failpoints
from ingest.errors import TransientError
from ingest.failpoints import ACTIONS, POINTS, Fault, parse, reached

ROOT = Path(__file__).parents[3]
SETTINGS = {
    "VIEWKEEPER_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d",
    "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "VIEWKEEPER_SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
}


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[Path]:
    """A file for the evidence; whatever a test arms is off again behind it."""
    yield tmp_path / "failpoints"
    failpoints.arm((), None)


def start(**environment: str) -> Result:
    return CliRunner().invoke(app, ["ingest"], env=SETTINGS | environment)


def test_off_a_point_does_nothing() -> None:
    for point in POINTS:
        reached(point)


def test_a_fault_is_written_down_and_happens_at_its_passing_and_no_other(evidence: Path) -> None:
    failpoints.arm(parse("before-commit:fail:3, after-poll:fail:1"), evidence)
    reached("before-commit")
    reached("before-commit")
    assert not evidence.exists()
    with pytest.raises(TransientError, match="failpoint before-commit, passing 3"):
        reached("before-commit")
    reached("before-commit")
    (line,) = evidence.read_text().splitlines()
    assert line.split()[1:] == ["before-commit", "fail", "3"]


@pytest.mark.parametrize("point", POINTS)
def test_every_point_can_be_asked_for(point: str) -> None:
    assert parse(f"{point}:kill:2") == (Fault(point, "kill", 2),)


def test_a_killed_process_leaves_the_line_that_says_where(evidence: Path) -> None:
    code = (
        "from ingest import failpoints; from pathlib import Path;"
        f"failpoints.arm(failpoints.parse('after-stage:kill:1'), Path({str(evidence)!r}));"
        "failpoints.reached('after-stage'); print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
    assert evidence.read_text().split()[1:] == ["after-stage", "kill", "1"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("before-comit:kill:1", "'before-comit' is no failpoint; there are after-poll, "),
        ("before-commit:explode:1", f"'explode' is no action; there are {', '.join(ACTIONS)}"),
        ("before-commit:kill", "does not end in the number of a passing"),
        ("before-commit:kill:0", "does not end in the number of a passing"),
        ("in-revoke:fail:1", "in-revoke can't fail"),
        ("before-commit:kill:1,", "'' is no failpoint"),
    ],
)
def test_what_is_asked_wrongly_is_refused_at_start(asked: str, said: str) -> None:
    done = start(VIEWKEEPER_FAILPOINTS=asked, VIEWKEEPER_FAILPOINTS_FILE="evidence")
    assert done.exit_code == 2
    assert "VIEWKEEPER_FAILPOINTS: " in done.stderr
    assert said in done.stderr


def test_faults_without_a_file_for_their_evidence_are_refused() -> None:
    done = start(VIEWKEEPER_FAILPOINTS="before-commit:kill:1")
    assert done.exit_code == 2
    assert "VIEWKEEPER_FAILPOINTS: needs VIEWKEEPER_FAILPOINTS_FILE" in done.stderr


def test_every_point_is_called_from_one_place() -> None:
    pages = "".join(path.read_text() for path in (ROOT / "ingest").glob("*.py"))
    names = [point.upper().replace("-", "_") for point in POINTS]
    calls = re.findall(r"\breached\((\w+)\)", pages)
    assert sorted(call for call in calls if call.isupper()) == sorted(names)
