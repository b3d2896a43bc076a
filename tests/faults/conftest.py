"""The fixtures of the fault tests, and what is asked of all of them together at the end."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.harness.bites import Bites
from tests.faults.harness.campaign import Run, lacking, write_report
from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground

_ALL: Final = pytest.StashKey[Bites]()
_RUN: Final = pytest.StashKey[Run]()
_LACKING: Final = pytest.StashKey[list[str]]()
_HERE: Final = "tests/faults/"


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """How each fault test ended, and the figures that it gave with `record_property`."""
    report = yield
    if item.nodeid.startswith(_HERE) and (report.when == "call" or not report.passed):
        run = item.config.stash.setdefault(_RUN, Run(item.config.getoption("--fault-seed")))
        name = item.nodeid.removeprefix(_HERE)
        run.tests[name] = f"{report.outcome}, {report.duration:.0f} s"
        said = [str(value) for kind, value in report.user_properties if kind == "said"]
        if said:
            run.figures[name] = "; ".join(said)
    return report


def _everything(config: pytest.Config) -> bool:
    """Whether all tests were asked for that a run without arguments runs."""
    asked = config.option
    chosen = (asked.keyword, asked.deselect, asked.lf, asked.stepwise, asked.collectonly)
    all_files = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return all_files and asked.markexpr == "not proof" and not any(chosen)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run of everything that met too little has failed; and the report, where one is wanted."""
    config = session.config
    bites = dict(config.stash.get(_ALL, Bites()).by_kind())
    if exitstatus == pytest.ExitCode.OK and _everything(config):
        config.stash[_LACKING] = lacking(bites)
        if config.stash[_LACKING]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
    page = config.getoption("--faults-report")
    run = config.stash.get(_RUN, None)
    if page is not None and run is not None:
        run.bites = bites
        write_report(page, run)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """One line with all bites by kind, and what is lacking."""
    bites = config.stash.get(_ALL, None)
    if bites is not None:
        terminalreporter.write_line(str(bites))
    for said in config.stash.get(_LACKING, []):
        terminalreporter.write_line(f"FAULTS LACKING: {said}", red=True)
