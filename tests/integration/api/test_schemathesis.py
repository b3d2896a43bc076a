"""schemathesis, a stranger that knows only our schema, asks for everything and finds nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.fixtures.apis import api_process
from tests.fixtures.databases import REPOSITORY, Database
from tests.integration.api.shop import busy_shop, stock

RUN: Final = "from schemathesis.cli import schemathesis; schemathesis()"
# Two ends of a page, or an id of another's making: valid by the schema, and refused by us.
TOO_STRICT: Final = "positive_data_acceptance"
DECLARED: Final = {
    "ok",
    "BAD_REQUEST",
    "BAD_USER_INPUT",
    "GRAPHQL_PARSE_FAILED",
    "GRAPHQL_VALIDATION_FAILED",
    "QUERY_TOO_COMPLEX",
}


@pytest.mark.parametrize(
    ("per_field", "at_least"), [(20, 200), pytest.param(1000, 10_000, marks=pytest.mark.proof)]
)
def test_schemathesis_finds_nothing(
    database: Database, tmp_path: Path, per_field: int, at_least: int
) -> None:
    stock(database.dsn, busy_shop())
    # Whether this machine is slow is another question.
    patience = {"api_acquire_timeout_s": 30, "api_statement_timeout_s": 30}
    with api_process(database.api_dsn, tmp_path, mode="dev", **patience) as server:
        options = {"--max-examples": per_field, "--seed": 1, "--request-timeout": 120}
        given = [str(part) for option in options.items() for part in option]
        given += ["--mode", "all", "--no-color", "--exclude-checks", TOO_STRICT]
        scalars = "tests.integration.api.scalars_for_schemathesis"
        found = subprocess.run(
            [sys.executable, "-c", RUN, "run", server.address, *given],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "SCHEMATHESIS_HOOKS": scalars},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stdout + found.stderr
        asked = re.search(r"([\d,]+) generated", found.stdout)
        assert asked is not None, found.stdout
        assert int(asked[1].replace(",", "")) >= at_least, found.stdout
        outcomes = set(re.findall(r" outcome=(\w+) ", server.log))
    assert "ok" in outcomes
    assert outcomes <= DECLARED, server.log
