"""What documents and manifests point at is there: files, settings, targets of make."""

import ast
import re
from pathlib import Path

from tests.conventions.checkout import ROOMS, ROOT, programs, texts

LINK = re.compile(r"\]\(([^)\s]+)\)")
SETTING = re.compile(r"\bVIEWKEEPER_[A-Z0-9_]+")
TARGET = re.compile(r"(?:^|[`\s])make ([a-z]+)\b(?=[^\n]*)", re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
# What a manifest asks of whoever starts it, as opposed to what it sets for the service.
ASKED = re.compile(r"\$\{(VIEWKEEPER_[A-Z0-9_]+)[^}]*\}")
ANY_KAFKA_OPTION = "VIEWKEEPER_KAFKA_"


def documents() -> list[tuple[str, str]]:
    """Every Markdown file."""
    found = list(texts(".md"))
    assert found
    return found


def test_every_relative_link_resolves() -> None:
    broken = [
        f"{name}: {link}"
        for name, text in documents()
        for link in LINK.findall(text)
        if not re.match(r"[a-z]+:|#", link)
        and not (ROOT / name).parent.joinpath(link.partition("#")[0]).exists()
    ]
    assert not broken, "\n".join(broken)


def test_every_anchor_resolves() -> None:
    broken = [
        f"{name}: {link}"
        for name, text in documents()
        for link in LINK.findall(text)
        if "#" in link and not re.match(r"[a-z]+:", link) and not _has_anchor((ROOT / name), link)
    ]
    assert not broken, "\n".join(broken)


def test_every_setting_that_is_named_exists() -> None:
    manifests = list(texts(".yml", ".yaml", ".example"))
    known = _settings() | {name for _, text in manifests for name in ASKED.findall(text)}
    set_by_manifests = [(name, ASKED.sub("", text)) for name, text in manifests]
    unknown = [
        f"{name}: {setting}"
        for name, text in [*set_by_manifests, *documents()]
        for setting in SETTING.findall(text)
        if setting not in known and not setting.startswith(ANY_KAFKA_OPTION)
    ]
    assert not unknown, "\n".join(unknown)


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "check"} <= targets
    unknown = [
        f"{name}: make {target}"
        for name, text in documents()
        for code in CODE.findall(text)
        for target in TARGET.findall(code)
        if target not in targets
    ]
    assert not unknown, "\n".join(unknown)


def test_every_make_target_says_what_it_does() -> None:
    silent = [
        line
        for line in (ROOT / "Makefile").read_text().splitlines()
        if re.match(r"[a-z]+:", line) and "## " not in line
    ]
    assert not silent


def _settings() -> set[str]:
    """The fields of every class of settings, and what the code asks the environment for by name."""
    found = set()
    for _, tree in programs(*ROOMS):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Settings"):
                fields = (n for n in node.body if isinstance(n, ast.AnnAssign))
                found |= {f"VIEWKEEPER_{ast.unparse(f.target).upper()}" for f in fields}
            if isinstance(node, ast.Constant) and SETTING.fullmatch(str(node.value)):
                found.add(str(node.value))
    return found


def _has_anchor(document: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = document.parent / path if path else document
    if not target.is_file():
        return False
    headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
