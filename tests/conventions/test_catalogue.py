"""Every stream and view is whole, and a step that was left out is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conventions.checkout import ROOT
from tests.conventions.steps import left_out


def test_every_stream_and_view_is_whole() -> None:
    missing = left_out(ROOT)
    assert not missing, "\n".join(missing)


def remove(name: str) -> Callable[[Path], None]:
    """Leave a file out."""
    return lambda root: (root / name).unlink()


def cut(name: str, old: str, new: str = "") -> Callable[[Path], None]:
    """Leave a line out."""

    def edit(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("leave_out", "named"),
    [
        (remove("schemas/payments.avsc"), "no contract: schemas/payments.avsc"),
        (remove("views/daily_sales.py"), "views/daily_sales.py is missing"),
        (
            cut("migrations/versions/0001_first_build.py", '"daily_sales"', '"other"'),
            "no migration creates the table 'daily_sales'",
        ),
        (remove("api/types/daily_sales.py"), "api/types/daily_sales.py is missing"),
        (cut("api/schema.py", '    "daily_sales",\n'), "no line in CONTENTS of api/schema.py"),
        (cut("views/__init__.py", '    "orders",\n'), "CONTENTS in views/__init__.py lacks it"),
        (cut("views/payments.py", "VIEW = ", "OTHER = "), "STREAM and no VIEW that keeps"),
    ],
)
def test_a_step_that_was_left_out_is_named(
    tmp_path: Path, leave_out: Callable[[Path], None], named: str
) -> None:
    for folder in ("api", "migrations", "schemas", "views"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    leave_out(tmp_path)
    assert any(named in sentence for sentence in left_out(tmp_path)), left_out(tmp_path)
