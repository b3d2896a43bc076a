"""Ctrl-C and SIGTERM: as an event for what finishes its work, as an exception for what is dropped.

Stands apart because Python's own way, an exception wherever the main thread happens to be, fits
neither a batch in hand nor a tidy end of the servers of a demo.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets. A second Ctrl-C ends the program at once."""
    stop = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StoppedError(KeyboardInterrupt):
    """Somebody asked for the end. No Exception, so that nothing takes it for a failure."""


@contextmanager
def raised_stop() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM raises StoppedError; later ones are not heard: it is ending."""
    asked = False

    def ask(_: int, __: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise StoppedError

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
