"""One rebuild, verify, swap or repair at a time: an advisory lock, and who holds it.

The lock lives as long as its session, so a killed command frees it. It keeps people from working
against each other; what keeps rows right if it is lost are the owner epochs.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from psycopg import Connection

from ingest.errors import RefusedError
from rebuild.builds import APPLICATION, FINISHING, Row, open_session

# Any number, as long as nothing else in the database takes the same one.
LOCK: Final = 8_526_488_214_002
_ENDS_S: Final = 5.0
_ORPHANS_END_S: Final = 10.0
_AGAIN_S: Final = 0.05


@contextmanager
def held(dsn: str, what: str) -> Iterator[Connection[Row]]:
    """Hold the turn for `what`, and give the session that holds it.

    RefusedError: somebody else has it; who, from where and since when.
    """
    purpose = f"{what} {socket.gethostname()}/{os.getpid()}"
    with open_session(dsn, purpose) as connection:
        _take(connection)
        _end_orphans(connection)
        yield connection


def _take(connection: Connection[Row]) -> None:
    """Take the lock. A session that has just ended may hold it for a moment, and has no name."""
    until = time.monotonic() + _ENDS_S
    while connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone() != (True,):
        holder = _holder(connection)
        if holder is not None:
            raise RefusedError(holder)
        if time.monotonic() > until:
            raise RefusedError("another rebuild has just ended: try again")
        time.sleep(_AGAIN_S)


def _end_orphans(connection: Connection[Row]) -> None:
    """End what a killed call has left at work: PostgreSQL goes on with an index that nobody waits
    for, and it is in the way of the one that is made now.

    RefusedError: it does not end.
    """
    orphans = (
        " FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
        " AND pg_has_role(usesysid, 'USAGE')"
    )
    name = f"{APPLICATION} {FINISHING}"
    wait_ms = round(_ORPHANS_END_S * 1000)
    connection.execute(f"SELECT pg_terminate_backend(pid, %s){orphans}", (wait_ms, name))
    left = [str(pid) for (pid,) in connection.execute(f"SELECT pid{orphans}", (name,))]
    if left:
        raise RefusedError(
            "a rebuild that was killed has left work behind that does not end: database backend"
            f" {', '.join(left)}. Wait for it, or end it there."
        )


def _holder(connection: Connection[Row]) -> str | None:
    row = connection.execute(
        "SELECT a.application_name, a.pid, coalesce(host(a.client_addr), 'a local socket'),"
        " to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND (l.classid::bigint << 32 | l.objid::bigint) = %s",
        (LOCK,),
    ).fetchone()
    if row is None:
        return None
    name, pid, address, since = row
    return (
        f"another one is running: {str(name).removeprefix(APPLICATION).strip()} (host/process),"
        f" from {address} since {since} UTC, database backend {pid}. Wait for it, or end it there."
    )
