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
    streams, views = _listed(root, "STREAMS"), _listed(root, "VIEWS")
    declared = list(_declared(root))
    return [
        *_unlisted(declared, streams, views),
        *_without_file(root, {*streams, *views}),
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
    if not re.search(rf"\b{view}\b", _code(root / "api" / "schema.py")):
        yield f"view {view!r} has no line in api/schema.py"


def _unlisted(declared: list[Declared], streams: list[str], views: list[str]) -> Iterator[str]:
    for file in declared:
        if file.has_view and file.module not in views:
            yield f"views/{file.module}.py declares VIEW; VIEWS in views/__init__.py lacks it"
        if file.has_stream and file.module not in streams:
            yield f"views/{file.module}.py declares STREAM; STREAMS in views/__init__.py lacks it"


def _without_file(root: Path, modules: set[str]) -> Iterator[str]:
    for module in sorted(modules):
        if not (root / "views" / f"{module}.py").exists():
            yield f"views/__init__.py lists {module!r}; views/{module}.py is missing"


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


def _listed(root: Path, name: str) -> list[str]:
    """The modules named in a tuple of views/__init__.py, as in `VIEWS = (orders.VIEW, …)`."""
    for node in _tree(root / "views" / "__init__.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            assert isinstance(node.value, ast.Tuple)
            return [ast.unparse(item).split(".")[0] for item in node.value.elts]
    raise AssertionError(f"views/__init__.py has no {name}")


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


def _code(path: Path) -> str:
    """The code of a file without its docstrings and comments; nothing if it is not there."""
    if not path.exists():
        return ""
    tree = _tree(path)
    if ast.get_docstring(tree):
        tree.body = tree.body[1:]
    return ast.unparse(tree)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))
