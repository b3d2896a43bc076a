"""docs/adding-a-view.md keeps its word on how much is to be written, and each step is needed."""

import shutil
from pathlib import Path

import pytest

from tests.conventions.checkout import ROOT
from tests.conventions.steps import left_out
from tests.fixtures.walks import Walk, walks

WALKS = walks((ROOT / "docs" / "adding-a-view.md").read_text("utf-8"))
MIGRATION = 'def upgrade():\n    op.create_table("{view}")\n'


def copy_of_checkout(folder: Path) -> Path:
    """What the steps are read from."""
    for name in ("api", "migrations", "schemas", "views"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def with_migration(root: Path, view: str) -> None:
    """Stands for the file that alembic writes."""
    (root / "migrations" / "versions" / "new.py").write_text(MIGRATION.format(view=view))


@pytest.mark.parametrize(
    ("walk", "files", "lines"), [(WALKS[0], 2, 2), (WALKS[1], 3, 2)], ids=["view", "stream"]
)
def test_a_walk_is_as_short_as_promised(walk: Walk, files: int, lines: int) -> None:
    """One file more is the migration, which alembic writes."""
    made = [block for block in walk.edits if block.language != "diff"]
    added = [
        line
        for block in walk.edits
        if block.language == "diff"
        for line in block.text.splitlines()
        if line.startswith(("+", "-"))
    ]
    assert (len(made), len(added)) == (files, lines)
    assert all(line.startswith("+") for line in added)
    assert sum("alembic revision" in block.text for block in walk.blocks) == 1


@pytest.mark.parametrize("walk", WALKS, ids=["view", "stream"])
def test_a_walk_leaves_nothing_out(tmp_path: Path, walk: Walk) -> None:
    root = copy_of_checkout(tmp_path)
    for edit in walk.edits:
        edit.apply(root)
    with_migration(root, _view(walk))
    assert left_out(root) == []


STEPS = [
    pytest.param(walk, at, id=f"{_id}-{walk.edits[at].path}" if at >= 0 else f"{_id}-migration")
    for _id, walk in zip(("view", "stream"), WALKS, strict=True)
    for at in range(-1, len(walk.edits))
]


@pytest.mark.parametrize(("walk", "left"), STEPS)
def test_each_step_that_is_left_out_is_named(tmp_path: Path, walk: Walk, left: int) -> None:
    root = copy_of_checkout(tmp_path)
    for at, edit in enumerate(walk.edits):
        if at != left:
            edit.apply(root)
    if left >= 0:
        with_migration(root, _view(walk))
    path = walk.edits[left].path if left >= 0 else "no migration creates the table"
    assert any(str(path) in sentence for sentence in left_out(root)), left_out(root)


def _view(walk: Walk) -> str:
    """The name of the view: its file's."""
    (line,) = (edit for edit in walk.edits if edit.path == "views/__init__.py")
    (added,) = (text for text in line.text.splitlines() if text.startswith("+"))
    return added.strip('+ ",')
