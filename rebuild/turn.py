"""One rebuild, verify, swap or repair at a time: an advisory lock, and who holds it.

The lock lives as long as its session, so a killed command frees it. It keeps people from working
against each other; what keeps rows right if it is lost are the owner epochs.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from psycopg import Connection

from ingest.errors import RefusedError
from rebuild.builds import APPLICATION, Row, open_session

# Any number, as long as nothing else in the database takes the same one.
LOCK: Final = 8_526_488_214_002


@contextmanager
def held(dsn: str, what: str) -> Iterator[Connection[Row]]:
    """Hold the turn for `what`, and give the session that holds it.

    RefusedError: somebody else has it; who, from where and since when.
    """
    purpose = f"{what} {socket.gethostname()}/{os.getpid()}"
    with open_session(dsn, purpose) as connection:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        if row != (True,):
            raise RefusedError(_busy(connection))
        yield connection


def _busy(connection: Connection[Row]) -> str:
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
        return "another rebuild has just ended: try again"
    name, pid, address, since = row
    return (
        f"another one is running: {str(name).removeprefix(APPLICATION).strip()} (host/process),"
        f" from {address} since {since} UTC, database backend {pid}. Wait for it, or end it there."
    )
