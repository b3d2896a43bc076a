"""The fixtures of the fault tests, and the line that says at the end what bit."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.harness.bites import Bites
from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground

_ALL: Final = pytest.StashKey[Bites]()


@pytest.fixture
def bites(pytestconfig: pytest.Config) -> Bites:
    """Counts the faults of a test. A test that asks for it fails if nothing bit."""
    return Bites(parent=pytestconfig.stash.setdefault(_ALL, Bites()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Generator[None, None, None]:
    """A fault test that passed counts only if its fault bit."""
    yield
    counted = item.funcargs.get("bites")
    if isinstance(counted, Bites):
        assert counted.total > 0, "no fault bit: nothing was tested"


@pytest.fixture(scope="session")
def field() -> Iterator[Field]:
    """Servers that a test may kill; it mends what it breaks."""
    with Field() as servers:
        yield servers


@pytest.fixture
def ground(field: Field, tmp_path: Path, bites: Bites) -> Iterator[Ground]:
    """New topics of three partitions and a database, with proxies in between."""
    with field.ground(tmp_path, bites) as made:
        yield made


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """One line with all bites by kind."""
    bites = config.stash.get(_ALL, None)
    if bites is not None:
        terminalreporter.write_line(str(bites))
