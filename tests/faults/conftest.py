"""The fixtures of the fault tests. What is asked of all of them together: `harness/judging.py`."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.faults.harness import judging
from tests.faults.harness.bites import Bites
from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground


@pytest.fixture
def bites(record_property: Callable[[str, object], None]) -> Iterator[Bites]:
    """Counts the faults of a test. A test that asks for it fails if nothing bit."""
    counted = Bites()
    yield counted
    record_property(judging.BITES, dict(counted.by_kind()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Generator[None, None, None]:
    """A fault test that passed counts only if its fault bit."""
    yield
    counted = item.funcargs.get("bites")
    if isinstance(counted, Bites):
        assert counted.total > 0, "no fault bit: nothing was tested"


@pytest.fixture(scope="session")
def fault_seed(pytestconfig: pytest.Config) -> int:
    """`--fault-seed`: another one sends other traffic."""
    return int(pytestconfig.getoption("--fault-seed"))


@pytest.fixture(scope="session")
def field(fault_seed: int) -> Iterator[Field]:
    """Servers that a test may kill; it mends what it breaks."""
    with Field(seed=fault_seed) as servers:
        yield servers


@pytest.fixture
def ground(field: Field, tmp_path: Path, bites: Bites) -> Iterator[Ground]:
    """New topics of three partitions and a database, with proxies in between."""
    with field.ground(tmp_path, bites) as made:
        yield made
