"""The files of the checkout as the conventions see them: what is tracked or about to be."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
ROOMS: Final = ("api", "cli", "dev", "ingest", "migrations", "rebuild", "schemas", "views")


@cache
def files() -> tuple[Path, ...]:
    """Every file that git tracks or would, and that is there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = {ROOT / name for name in listed.split("\0") if name}
    return tuple(sorted(path for path in paths if path.is_file()))


def texts(*suffixes: str) -> Iterator[tuple[str, str]]:
    """Name and text of every file with one of the suffixes, of every text file if none is given."""
    for path in files():
        if (suffixes and path.suffix not in suffixes) or ".min." in path.name:
            continue  # what is minified is somebody else's, vendored
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


def programs(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    """Name and syntax tree of every Python file in the folders."""
    for name, text in texts(".py"):
        if name.split("/")[0] in folders:
            yield name, ast.parse(text)
