"""Judges a whole run of the fault tests: bites of all tests together, and the report.

Stands apart from the fixtures because it sees finished tests alone, by their reports: those of
this process and, where a run is shared out to several, those of all of them.
"""

from pathlib import Path
from typing import Final

import pytest

from bench.results import commit
from tests.faults.harness.bites import Bites
from tests.faults.harness.campaign import Run, lacking, write_report

BITES: Final = "bites"
"""The property of a finished test that holds its bites by kind."""
SAID: Final = "said"
"""The property of a finished test that holds a sentence with figures for the report."""
_HERE: Final = "tests/faults/"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the fault tests."""
    group = parser.getgroup("faults")
    group.addoption("--fault-seed", type=int, default=1, help="of the traffic of fault tests")
    group.addoption("--faults-report", type=Path, help="a Markdown file; JSON goes beside it")


def pytest_configure(config: pytest.Config) -> None:
    """Judge where all reports are heard: not in a process that a run was shared out to."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Judge(config), "faults-judge")


class _Judge:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._page: Path | None = config.getoption("--faults-report")
        self._run = Run(config.getoption("--fault-seed"), commit() if self._page else "")
        self._lacking: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """How each fault test ended, its bites, and the figures that it gave."""
        if not report.nodeid.startswith(_HERE):
            return
        name = report.nodeid.removeprefix(_HERE)
        if report.when == "call" or not report.passed:
            self._run.tests[name] = f"{report.outcome}, {report.duration:.0f} s"
        if report.when == "teardown":
            self._take(name, report.user_properties)

    def _take(self, name: str, properties: list[tuple[str, object]]) -> None:
        said = [str(value) for kind, value in properties if kind == SAID]
        if said:
            self._run.figures[name] = "; ".join(said)
        for kind, value in properties:
            if kind == BITES:
                assert isinstance(value, dict)
                self._run.bites[name] = value

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """A run of everything that met too little has failed; and the report, where wanted."""
        if exitstatus == pytest.ExitCode.OK and _everything(self._config):
            self._lacking = lacking(self._run.by_kind())
            if self._lacking:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._page is not None and self._run.tests:
            write_report(self._page, self._run)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One line with all bites by kind, and what is lacking."""
        bites = Bites()
        for kind, times in self._run.by_kind().items():
            bites.bit(kind, times)
        if bites.total:
            terminalreporter.write_line(str(bites))
        for said in self._lacking:
            terminalreporter.write_line(f"FAULTS LACKING: {said}", red=True)


def _everything(config: pytest.Config) -> bool:
    """Whether all tests were asked for that a run without arguments runs."""
    asked = config.option
    chosen = [asked.keyword, asked.deselect, asked.collectonly]
    # Options of pytest's cache, which a run may do without.
    chosen += [getattr(asked, name, False) for name in ("lf", "stepwise")]
    all_files = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return all_files and asked.markexpr == "not proof" and not any(chosen)
