"""A seeded bug: one place in one file that reads otherwise, and the test that must notice."""

from dataclasses import dataclass
from pathlib import Path


class NotPlantedError(Exception):
    """The text that a mutant changes is not in its file, or not just once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`old` becomes `new` in `file`; `test` (a pytest node id) must fail then.

    `bug` is what a developer would have done wrong.
    """

    name: str
    bug: str
    file: str
    old: str
    new: str
    test: str

    def plant(self, checkout: Path) -> None:
        """Change the file. NotPlantedError: the code has moved on; the mutant must follow it."""
        (checkout / self.file).write_text(self.planted(checkout), "utf-8")

    def planted(self, checkout: Path) -> str:
        """The changed text of the file, which stays as it is. Errors as in `plant`."""
        text = (checkout / self.file).read_text("utf-8")
        if text.count(self.old) != 1 or self.old == self.new:
            raise NotPlantedError(
                f"{self.name}: {self.file} has {text.count(self.old)} places that read"
                f" {self.old.strip()!r}; it must be one. Mend tests/faults/mutants/table.py"
            )
        return text.replace(self.old, self.new)
