"""Free room is told where the server's disk is this machine's, however its address was given."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from psycopg import Connection, errors

from rebuild import work
from rebuild.builds import Row


class Server:
    """A connection to a server whose data is in a folder."""

    def __init__(self, address: str | None, folder: Path | None) -> None:
        self.info = SimpleNamespace(host="localhost", hostaddr=address)
        self._folder = folder

    def execute(self, _query: str) -> "Server":
        """Ask for the folder."""
        if self._folder is None:
            raise errors.InsufficientPrivilege
        return self

    def fetchone(self) -> tuple[str]:
        """The folder."""
        return (str(self._folder),)


def free(address: str | None, folder: Path | None) -> int | None:
    return work._free_bytes(cast(Connection[Row], Server(address, folder)))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "", None])
def test_here_it_is_told(address: str | None, tmp_path: Path) -> None:
    assert (free(address, tmp_path) or 0) > 0


@pytest.mark.parametrize("address", ["10.0.0.7", "2001:db8::1"])
def test_elsewhere_it_is_not(address: str, tmp_path: Path) -> None:
    assert free(address, tmp_path) is None


def test_a_server_that_does_not_say_where_is_not_guessed_at(tmp_path: Path) -> None:
    assert free("127.0.0.1", None) is None
    assert free("127.0.0.1", tmp_path / "in another machine") is None
