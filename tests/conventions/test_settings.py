"""The table of settings in docs/operating.md: every setting, and none that there is not."""

import re

import pytest
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from cli import settings as of_commands
from dev.cache import CACHE_VARIABLE
from ingest.settings import IngestSettings
from tests.conventions.checkout import ROOT

ROW = re.compile(r"^\| `(VIEWKEEPER_\w+)` \|([^|]*)\|([^|]*)\|(.*)\|$", re.MULTILINE)
PASSED_THROUGH = "VIEWKEEPER_KAFKA_OPTIONS"
"""The field that holds every VIEWKEEPER_KAFKA_<OPTION>; it is no setting of its own."""


def classes() -> list[type[BaseSettings]]:
    """Every class of settings."""
    found = [c for c in vars(of_commands).values() if isinstance(c, type)]
    commands = [c for c in found if issubclass(c, BaseSettings) and c.__module__ == "cli.settings"]
    return [IngestSettings, ApiSettings, *commands]


def fields() -> dict[str, FieldInfo]:
    """Every setting, as the first class that has it declares it."""
    found: dict[str, FieldInfo] = {}
    for of in classes():
        for name, field in of.model_fields.items():
            found.setdefault(f"VIEWKEEPER_{name.upper()}", field)
    del found[PASSED_THROUGH]
    return found


def table() -> dict[str, tuple[str, str, str]]:
    """Per setting who reads it, its default and its meaning."""
    rows = ROW.findall((ROOT / "docs" / "operating.md").read_text("utf-8"))
    named = [row[0] for row in rows]
    assert len(named) == len(set(named)), "a setting is listed twice"
    return {name: (by.strip(), default.strip(), mean.strip()) for name, by, default, mean in rows}


def test_the_table_lists_every_setting_and_no_other() -> None:
    assert len(classes()) >= 7
    assert table().keys() == fields().keys() | {CACHE_VARIABLE}


def test_every_setting_has_a_reader_and_a_meaning() -> None:
    silent = [name for name, (by, _, meaning) in table().items() if not (by and meaning)]
    assert not silent


@pytest.mark.parametrize("name", sorted(fields()))
def test_the_table_tells_the_default(name: str) -> None:
    field, told = fields()[name], table()[name][1]
    if field.is_required():
        assert told == "required"
    elif field.default is not None and field.default != "":
        plain = field.default
        assert told == f"`{str(plain).lower() if isinstance(plain, bool) else plain}`"
