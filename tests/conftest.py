"""The fixtures that every test may ask for; each lives in `tests/fixtures/`. And the options."""

from pathlib import Path

import pytest

pytest_plugins = (
    "tests.fixtures.interpreter",
    "tests.fixtures.servers",
    "tests.fixtures.databases",
    "tests.fixtures.topics",
    "tests.fixtures.registries",
    "tests.fixtures.clients",
    "tests.fixtures.browsers",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the fault tests: they must be known before those are found."""
    group = parser.getgroup("faults")
    group.addoption("--fault-seed", type=int, default=1, help="of the traffic of fault tests")
    group.addoption("--faults-report", type=Path, help="a Markdown file; JSON goes beside it")
