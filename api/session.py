"""How the database is to treat what we read: bounded in time, in UTC, read-only, as which role.

Told once to each connection, when it is made; or, behind a pooler that gives every transaction
another connection, to each transaction at its beginning, for as long as it lasts. Stands apart from
`read.py` because answers are wrong, and not only slow, where a setting did not take.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import structlog

from api.callers import Caller
from api.login import Strength, judge
from api.pulse import Connection
from views.ddl import CLAIM, CUSTOMER

Opening = tuple[bytes, Sequence[str]]
"""The first statement of a transaction, with its values."""

_log = structlog.get_logger(__name__)

_CALLER: Final = b"SELECT set_config('role', $1, true), set_config($2, $3, true)"
_TOOK: Final = b"""
SELECT name, setting FROM pg_settings UNION ALL SELECT 'role', current_setting('role')
"""


class SettingsLostError(psycopg.OperationalError):
    """The server has other settings than we asked for: something in between drops them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The settings. `pooled`: they last for a transaction, and nothing else lasts longer either."""

    statement_timeout_s: float
    guarded: bool = False
    """Sessions begin as a customer without an id: who sets no caller sees no row."""
    pooled: bool = False
    strong_login: Strength = "allowed"

    @property
    def connecting(self) -> dict[str, Any]:
        """What psycopg is to connect with."""
        if self.pooled:
            # A prepared statement would be missing on the next connection.
            return {"prepare_threshold": None}
        options = " ".join(f"-c {name}={value}" for name, value in self._settings.items())
        return {"options": options}

    def opening(self, caller: Caller | None) -> Opening | None:
        """What a transaction of this caller must begin with; None: nothing, nor a transaction."""
        if not self.pooled:
            return None if caller is None else (_CALLER, _claims(caller))
        values = [part for setting in self._of(caller).items() for part in setting]
        calls = (f"set_config(${at}, ${at + 1}, true)" for at in range(1, len(values), 2))
        return f"SELECT {', '.join(calls)}".encode(), values

    async def configure(self, connection: Connection) -> None:
        """Make a new connection ours.

        SettingsLostError: it did not take the settings. StrongLoginError: no policy binds it.
        """
        await connection.set_autocommit(True)
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        if not self.pooled:
            await self._require(connection)
        await judge(connection, self.strong_login)

    async def _require(self, connection: Connection) -> None:
        rows = await (await connection.execute(_TOOK)).fetchall()
        there = {str(row["name"]): str(row["setting"]) for row in rows}
        lost = _differences(self._settings, there)
        if not lost:
            return
        await connection.close()
        problem = (
            f"The database did not take what a session must have: {', '.join(lost)}. A pooler drops"
            " it: set VIEWKEEPER_API_POOLER=transaction, or connect past the pooler."
        )
        _log.error("the database cannot be read", error=problem)
        raise SettingsLostError(problem)

    @property
    def _settings(self) -> dict[str, str]:
        timeout_ms = int(self.statement_timeout_s * 1000)
        return {
            "statement_timeout": str(timeout_ms),
            "idle_in_transaction_session_timeout": str(timeout_ms * 4),
            "TimeZone": "UTC",
            "DateStyle": "ISO",
            # Statements are long and quick: to compile their expressions takes longer than to run
            # them.
            "jit": "off",
            "default_transaction_read_only": "on",
            **({"role": CUSTOMER} if self.guarded else {}),
        }

    def _of(self, caller: Caller | None) -> dict[str, str]:
        if caller is None:
            return self._settings
        role, claim, customer_id = _claims(caller)
        return {**self._settings, "role": role, claim: customer_id}


def _differences(wanted: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What is not as wanted. The server tells more of a date style than was asked for."""
    found = {name: there.get(name, "") for name in wanted}
    return [
        f"{name} is {found[name]!r} and not {value!r}"
        for name, value in wanted.items()
        if found[name] != value and not found[name].startswith(f"{value}, ")
    ]


def _claims(caller: Caller) -> tuple[str, str, str]:
    return caller.database_role, CLAIM, caller.customer_id
