"""Free ports on loopback for servers that are told their port before they start.

Stands apart because every server needs one and two must never be handed the same. They are drawn
below the range that the kernel uses for outgoing connections, so that a server which is down for a
moment finds its port still free when it comes back.
"""

import random
import socket
import threading
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_RANGE: Final = range(20_000, 32_000)
_TRIES: Final = 500
_handed_out: set[int] = set()
_lock: Final = threading.Lock()


def free_port(wanted: int | None = None) -> int:
    """A port that nothing listens on: the wanted one if it is free, else another."""
    if wanted is not None and is_free(wanted):
        return wanted
    with _lock:
        for port in random.SystemRandom().sample(_RANGE, _TRIES):
            if port not in _handed_out and is_free(port):
                _handed_out.add(port)
                return port
    raise RuntimeError(f"no free port on {LOOPBACK} in {_RANGE} after {_TRIES} tries")


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    """Whether something listens on the port now."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
