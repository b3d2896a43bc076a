"""Whether the API's login is one that row-level security binds.

Customers are read for with a role that is bound whatever the login is; a login that is not makes
one mistake on that way enough to show everything. So with tokens it is asked what it may, at start
and again of each connection, because roles change and a fail-over leads to another server. Stands
apart from `session.py`: that is what we set, this is what an administrator did.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import psycopg
import structlog
from psycopg.rows import dict_row

from api.pulse import Connection

Strength = Literal["allowed", "told", "refused"]
"""What becomes of a login that no policy binds."""

_log = structlog.get_logger(__name__)

_CONNECT_TIMEOUT_S: Final = 3
_POWERS: Final = b"""
SELECT r.rolname, r.rolsuper, r.rolbypassrls, EXISTS (
    SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname ~ '^build_[0-9]+$'
    AND pg_has_role(r.oid, c.relowner, 'MEMBER')
) AS owns
FROM pg_roles AS r WHERE r.rolname = session_user
"""


class StrongLoginError(psycopg.OperationalError):
    """The login is above row-level security. Give the API one that can only read."""


async def judge(connection: Connection, strong: Strength) -> None:
    """Close a connection whose login is above the policies. StrongLoginError: it is `refused`."""
    if strong == "allowed":
        return
    powers = await (await connection.execute(_POWERS)).fetchone()
    problem = _problem(powers or {})
    if problem is None:
        return
    _log.error("the login is too strong", error=problem)
    if strong == "refused":
        await connection.close()
        raise StrongLoginError(problem)


def problem_of(dsn: str) -> str | None:
    """What is wrong with a login; None: nothing, or it cannot be asked now."""
    try:
        with psycopg.connect(
            dsn, row_factory=dict_row, connect_timeout=_CONNECT_TIMEOUT_S
        ) as connection:
            return _problem(connection.execute(_POWERS).fetchone() or {})
    except psycopg.Error as error:
        _log.info("the login cannot be asked what it may: later", error=str(error))
        return None


def _problem(powers: Mapping[str, Any]) -> str | None:
    kinds = {
        "rolsuper": "is a superuser",
        "rolbypassrls": "has BYPASSRLS",
        "owns": "owns the views' tables",
    }
    found = [words for name, words in kinds.items() if powers.get(name)]
    if not found:
        return None
    return (
        f"The login {powers['rolname']!r} of VIEWKEEPER_API_DATABASE_URL {' and '.join(found)}: no"
        " policy binds it, so a customer might see the rows of others. Give the API a login that"
        " is only a member of viewkeeper_reader."
    )
