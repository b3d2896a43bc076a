"""The runner of seeded bugs: it plants what it says, and says so when one is not found."""

import shutil
from pathlib import Path

import pytest

from tests.faults.mutants import __main__ as program
from tests.faults.mutants.mutant import Mutant, NotPlantedError
from tests.faults.mutants.run import run, table
from tests.faults.mutants.table import MUTANTS
from tests.fixtures.databases import REPOSITORY

QUICK = "tests/unit/ingest/test_breaker.py"


def mutant(**changes: str) -> Mutant:
    fields = {
        "name": "harmless",
        "bug": "a sentence is worded otherwise",
        "file": "ingest/breaker.py",
        "old": "def _harmless(",
        "new": "def _harmless (",
        "test": QUICK,
    }
    return Mutant(**(fields | changes))


@pytest.mark.parametrize("one", MUTANTS, ids=lambda one: one.name)
def test_every_mutant_still_has_its_place_and_its_test(one: Mutant, tmp_path: Path) -> None:
    (tmp_path / one.file).parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / one.file, tmp_path / one.file)
    one.plant(tmp_path)
    assert (tmp_path / one.file).read_text("utf-8") != (REPOSITORY / one.file).read_text("utf-8")
    file, _, test = one.test.partition("::")
    assert f"def {test.partition('[')[0]}" in (REPOSITORY / file).read_text("utf-8")


def test_no_two_mutants_have_one_name() -> None:
    assert len({one.name for one in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("old", ["not in the file at all", "    return "])
def test_a_mutant_whose_place_is_gone_or_not_the_only_one_is_refused(
    old: str, tmp_path: Path
) -> None:
    (tmp_path / "ingest").mkdir()
    shutil.copy(REPOSITORY / "ingest/breaker.py", tmp_path / "ingest/breaker.py")
    with pytest.raises(NotPlantedError, match=r"harmless: ingest/breaker\.py"):
        mutant(old=old).plant(tmp_path)


def test_a_mutant_that_no_test_finds_has_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    (verdict,) = run([mutant()], at_once=2)
    assert not verdict.caught
    assert "ESCAPED" in table([verdict])
    monkeypatch.setattr(program, "MUTANTS", (mutant(),))
    monkeypatch.setattr(program, "run", lambda *_args, **_options: [verdict])
    monkeypatch.setattr("sys.argv", ["make mutants"])
    assert program.main() == 1


def test_a_test_that_fails_by_itself_catches_nothing() -> None:
    broken = mutant(test="tests/unit/faults/no_such_test.py")
    (verdict,) = run([broken], at_once=2)
    assert not verdict.caught
    assert "does not pass without it" in verdict.why
