"""Logs of the services: one line per event on standard error, the same form for every library.

Stands apart because only who runs a process may decide where its log goes.
"""

import faulthandler
import logging
import signal
import sys

import structlog
from structlog.typing import Processor

# uvicorn says it of every handshake that is answered with a refusal: a flood would fill the log.
_UNTRUE = "ASGI callable returned without completing handshake."
_QUIET = ("httpx", "httpcore", "uvicorn.error", "websockets", "alembic")


def log_to_stderr() -> None:
    """Configure structlog and the standard library. May be called again.

    On a terminal lines are coloured for people; elsewhere they are `key=value`, times in UTC.
    SIGUSR1 adds where each thread is: what to ask of a process that seems to stand still.
    """
    faulthandler.register(signal.SIGUSR1, file=2)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered = _rendered(coloured=sys.stderr.isatty())
    # Our own lines go past the standard library: its records take longer than all the rest.
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *rendered,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_true)


def _is_true(record: logging.LogRecord) -> bool:
    return record.msg != _UNTRUE


def _rendered(*, coloured: bool) -> list[Processor]:
    if coloured:
        return [structlog.dev.ConsoleRenderer()]
    first = ["timestamp", "level", "event"]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.LogfmtRenderer(key_order=first, bool_as_flag=False),
    ]
