"""docs/guarantees.md names tests that exist."""

import ast
import re

import pytest

from tests.conventions.checkout import ROOT

PAGE = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", PAGE)))


def test_every_promise_names_a_test() -> None:
    rows = [row for row in PAGE.splitlines() if row.startswith("|") and "---" not in row]
    promises = [row for row in rows if not row.startswith("| promise")]
    assert len(promises) > 20
    assert not [row for row in promises if "`tests/" not in row]


@pytest.mark.parametrize("name", NAMED)
def test_a_named_test_exists(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    defined = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert function in defined if function else any(n.startswith("test_") for n in defined)
