"""Which step of docs/adding-a-view.md was left out: read from the files, nothing is imported."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Declared:
    """What one file in `views/` declares."""

    module: str
    has_stream: bool
    has_view: bool
    contract: str | None


def left_out(root: Path) -> list[str]:
    """One sentence for each missing piece of a stream or a view; empty if nothing is missing."""
    views = _listed(root / "views" / "__init__.py")
    declared = list(_declared(root))
    return [
        *_unlisted(declared, views),
        *_without_file(root, views),
        *_without_contract(root, declared),
        *(sentence for view in views for sentence in _of_view(root, view)),
        *_left_behind(root, declared, views),
    ]


def _of_view(root: Path, view: str) -> Iterator[str]:
    if not _in_a_version(root, view):
        yield (
            f"no migration creates the table {view!r}: alembic revision --autogenerate "
            f'-m "add {view}"'
        )
    if not (root / "api" / "types" / f"{view}.py").exists():
        yield f"view {view!r} has no GraphQL type: api/types/{view}.py is missing"
    if view not in _listed(root / "api" / "schema.py"):
        yield f"view {view!r} has no line in CONTENTS of api/schema.py"


def _unlisted(declared: list[Declared], views: list[str]) -> Iterator[str]:
    for file in declared:
        if file.has_view and file.module not in views:
            yield f"views/{file.module}.py declares VIEW; CONTENTS in views/__init__.py lacks it"
        if file.has_stream and not file.has_view:
            yield f"views/{file.module}.py declares STREAM and no VIEW that keeps its events"


def _without_file(root: Path, views: list[str]) -> Iterator[str]:
    for view in views:
        if not (root / "views" / f"{view}.py").exists():
            yield f"views/__init__.py lists {view!r}; views/{view}.py is missing"


def _without_contract(root: Path, declared: list[Declared]) -> Iterator[str]:
    for file in declared:
        if file.contract and not (root / "schemas" / file.contract).exists():
            yield f"the stream of views/{file.module}.py has no contract: schemas/{file.contract}"


def _left_behind(root: Path, declared: list[Declared], views: list[str]) -> Iterator[str]:
    used = {file.contract for file in declared}
    for contract in sorted((root / "schemas").glob("*.avsc")):
        if contract.name not in used:
            yield f"schemas/{contract.name} is the contract of no stream: views/… declares none"
    for file in sorted((root / "api" / "types").glob("[a-z]*.py")):
        if file.stem not in views:
            yield f"api/types/{file.name} is the type of no view in views/__init__.py"


def _listed(path: Path) -> list[str]:
    """The names in the tuple CONTENTS of a file."""
    for node in _tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONTENTS":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise AssertionError(f"{path.name} has no CONTENTS")


def _declared(root: Path) -> Iterator[Declared]:
    for path in sorted((root / "views").glob("[a-z]*.py")):
        tree = _tree(path)
        names = {
            ast.unparse(target)
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
        }
        yield Declared(
            module=path.stem,
            has_stream="STREAM" in names,
            has_view="VIEW" in names,
            contract=_contract(tree),
        )


def _contract(tree: ast.Module) -> str | None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Stream":
            for keyword in node.keywords:
                if keyword.arg == "contract":
                    return str(ast.literal_eval(keyword.value))
    return None


def _in_a_version(root: Path, table: str) -> bool:
    created = re.compile(rf"create_table\(\s*\"{table}\"")
    versions = (root / "migrations" / "versions").glob("*.py")
    return any(created.search(version.read_text()) for version in versions)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))
