"""What no file of the repository may say."""

import ast
import re
from collections.abc import Callable

import pytest

from tests.conventions.checkout import ROOMS, files, programs, texts

# One letter of each stands in brackets, so that this file does not name what it forbids.
FORBIDDEN = {
    "the address of a package index": re.compile(
        r"py[p]i\.(org|python)|files\.python[h]osted|--(extra-)?inde[x]-url|registry\.np[m]js"
        r"|repo1?\.mav[e]n|index\.crat[e]s|proxy\.gol[a]ng|deb\.debi[a]n"
    ),
    "a path of one machine": re.compile(r"(?<![\w.])/(wor[k]|roo[t]|User[s]|tmp/v[k])/"),
    "work that is left over": re.compile(r"\b(TO[D]O|FIX[M]E|XX[X])\b"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if FORBIDDEN[what].search(line)
    ]
    assert not found, f"{what}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("what", "example"),
    [
        ("the address of a package index", "--extra-" + "index-url x"),
        ("a path of one machine", "cd /wor" + "k/main"),
        ("work that is left over", "# TO" + "DO: later"),
    ],
)
def test_the_rules_see_what_they_forbid(what: str, example: str) -> None:
    assert FORBIDDEN[what].search(example)


def test_no_module_is_a_drawer_for_anything() -> None:
    drawers = {"common", "utils", "util", "helpers", "helper", "core", "base", "misc"}
    found = [p for p in files() if p.suffix == ".py" and {p.stem, p.parent.name} & drawers]
    assert not found


def test_every_module_says_what_its_job_is() -> None:
    silent = [
        name
        for name, tree in programs(*ROOMS, "tests", "bench")
        if tree.body and not ast.get_docstring(tree)
    ]
    assert not silent


def test_no_function_imports() -> None:
    found = [
        f"{name}:{inner.lineno}"
        for name, tree in programs(*ROOMS)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(function)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert not found, "a name is in the wrong room: " + ", ".join(found)


def test_a_version_of_the_schema_imports_nothing_of_ours() -> None:
    found = [
        f"{name} imports {module}"
        for name, tree in programs("migrations")
        if name.startswith("migrations/versions/")
        for module in _imported(tree)
        if module in ROOMS or module == "tests"
    ]
    assert not found


WAITING = "tests/fixtures/waiting.py"
"""The one place that may: it looks again and again, and lets a fault last."""


def _sleeps(call: ast.Call) -> bool:
    return ast.unparse(call.func) in {"time.sleep", "sleep"}


def _waits_on_a_loop(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "asyncio.sleep" and ast.unparse(call.args[0]) != "0"


def _waits_for_nobody(call: ast.Call) -> bool:
    """An event that nobody else knows is never set: it is a sleep by another name."""
    return re.fullmatch(r"(threading\.)?Event\(\)\.wait", ast.unparse(call.func)) is not None


def _asks_the_clock(call: ast.Call) -> bool:
    clocks = r"(datetime\.)?(datetime\.(now|utcnow|today)|date\.today)|time\.time(_ns)?"
    return re.fullmatch(clocks, ast.unparse(call.func)) is not None


@pytest.mark.parametrize(
    "forbidden", [_sleeps, _waits_on_a_loop, _waits_for_nobody, _asks_the_clock]
)
def test_no_test_waits_on_a_clock(forbidden: Callable[[ast.Call], bool]) -> None:
    found = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for name, tree in programs("tests")
        for node in ast.walk(tree)
        if name != WAITING and isinstance(node, ast.Call) and forbidden(node)
    ]
    assert not found, "wait with tests.fixtures.waiting.eventually: " + ", ".join(found)


@pytest.mark.parametrize(
    ("rule", "call"),
    [
        (_sleeps, "time.sleep(1)"),
        (_waits_on_a_loop, "asyncio.sleep(0.1)"),
        (_waits_for_nobody, "threading.Event().wait(5)"),
        (_asks_the_clock, "datetime.datetime.now()"),
        (_asks_the_clock, "datetime.now(UTC)"),
        (_asks_the_clock, "time.time()"),
    ],
)
def test_the_clock_rules_see_what_they_forbid(rule: Callable[[ast.Call], bool], call: str) -> None:
    expression = ast.parse(call, mode="eval").body
    assert isinstance(expression, ast.Call)
    assert rule(expression)


DATES = {
    "api/events.py": "until when a token holds, as its issuer dates it",
    "api/sockets.py": "until when a token holds, as its issuer dates it",
    "cli/rebuild.py": "when a verify ended, for Prometheus",
    "dev/shop.py": "sample traffic happens today",
}
"""Who in the product asks for the date, and what for. Nothing else may rest on a wall clock."""


def test_no_room_decides_by_a_wall_clock() -> None:
    asking = {
        name
        for name, tree in programs(*ROOMS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _asks_the_clock(node)
    }
    assert asking == DATES.keys()


def test_the_oracle_shares_nothing_with_the_product() -> None:
    found = [
        f"{name} imports {module}"
        for name, tree in programs("tests")
        if name.startswith("tests/faults/oracle/")
        for module in _imported(tree) - {"tests"}
        if module in ROOMS or module == "fastavro"
    ]
    inside = [
        f"{name} imports {node.module}"
        for name, tree in programs("tests")
        if name.startswith("tests/faults/oracle/")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests")
        if not (node.module or "").startswith("tests.faults.oracle.")
        if node.module != "tests.faults.oracle"
    ]
    assert not found + inside


def _imported(tree: ast.Module) -> set[str]:
    nodes = list(ast.walk(tree))
    plain = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return plain | {
        (node.module or ".").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)
    }
