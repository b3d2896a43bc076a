"""The fixtures that every test may ask for; each lives in `tests/fixtures/`."""

pytest_plugins = (
    "tests.faults.harness.judging",
    "tests.fixtures.interpreter",
    "tests.fixtures.servers",
    "tests.fixtures.databases",
    "tests.fixtures.topics",
    "tests.fixtures.registries",
    "tests.fixtures.clients",
    "tests.fixtures.browsers",
)
