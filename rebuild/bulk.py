"""The bulk of a build: several processes at once, each with a share of the partitions.

Decoding takes a processor each, and one process can use only one. Partitions are shared out by
their number, so that an order and its payments are mostly in one process. A child ends when its
pipe to the parent closes, so a killed parent leaves none behind; if one lingers, the epochs that
the next builder draws fence it.
"""

import logging
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

import structlog

from ingest.connect import Target
from ingest.errors import RefusedError, TransientError
from ingest.settings import IngestSettings
from ingest.tuning import tune_interpreter
from rebuild.builder import Builder, Letters, StoppedError
from rebuild.pace import ALONE, LOOK_S, RESTING, Look, Pacer
from rebuild.processes import CONTEXT, prepare
from views.positions import Partition

_END_S: Final = 30.0
_WORTH_A_PROCESS: Final = 100_000
"""Events below which starting processes takes longer than it saves."""
_NICE: Final = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is to be done: fill `target` to `until`, at most so many events a second."""

    target: Target
    partitions: tuple[Partition, ...]
    until: Mapping[Partition, int]
    letters: Letters
    rate: float | None = None


def processes_for(partitions: int, events: int, asked: int | None) -> int:
    """How many processes a load is worth."""
    if asked is not None:
        return max(1, min(asked, partitions))
    if events < _WORTH_A_PROCESS:
        return 1
    return max(1, min(os.cpu_count() or 1, partitions))


def fill(
    settings: IngestSettings,
    load: Load,
    *,
    processes: int,
    look: Look,
    stop: threading.Event,
) -> None:
    """Fill the build to the position. `look` is called about twice a second and gives the share.

    Errors as `Builder.go_to`. The build keeps what was committed.
    """
    if processes == 1:
        _fill_here(settings, load, look, stop)
        return
    with _Children(settings, load, processes) as children:
        children.join(look, stop)


def _fill_here(settings: IngestSettings, load: Load, look: Look, stop: threading.Event) -> None:
    """In a thread of its own: on Linux niceness is a thread's, and nobody can take it back."""
    tune_interpreter()
    halt = threading.Event()
    pacer = Pacer(halt, rate=load.rate)

    def work() -> None:
        with _builder(settings, load, halt) as builder:
            builder.go_to(load.until, load.letters, pace=pacer)

    with ThreadPoolExecutor(1, "bulk", initializer=os.nice, initargs=(_NICE,)) as alone:
        working = alone.submit(work)
        try:
            while not stop.is_set() and not wait_for([working], LOOK_S).done:
                pacer.share = look()
        finally:
            halt.set()
        working.result()


def _builder(settings: IngestSettings, load: Load, stop: threading.Event) -> Builder:
    return Builder(settings, load.target, load.partitions, stop=stop, bulk=True, rate=load.rate)


class _Children:
    """The processes of a load; leaving it ends them."""

    def __init__(self, settings: IngestSettings, load: Load, count: int) -> None:
        prepare()
        self._children: list[tuple[BaseProcess, Connection]] = []
        for number in range(count):
            ours, theirs = CONTEXT.Pipe()
            child = CONTEXT.Process(
                target=_child,
                args=(settings, _share(load, number, count), theirs),
                name=f"rebuild-{number}",
                daemon=True,
            )
            child.start()
            theirs.close()
            self._children.append((child, ours))

    def __enter__(self) -> "_Children":
        return self

    def __exit__(self, *_exc: object) -> None:
        for _child_process, pipe in self._children:
            pipe.close()
        for child, _pipe in self._children:
            child.join(_END_S)
            if child.is_alive():
                child.kill()
                child.join()

    def join(self, look: Look, stop: threading.Event) -> None:
        """Wait until every child has reached its end."""
        waiting = {pipe: child for child, pipe in self._children}
        turn = 0
        while waiting:
            for pipe in wait(list(waiting), timeout=LOOK_S):
                assert isinstance(pipe, Connection)
                _take(pipe, waiting.pop(pipe))
            share = look()
            turn += 1
            for number, pipe in enumerate(waiting):
                # Beside live ingest one at a time: all at once, and PostgreSQL at work for each of
                # them, they leave those who read no processor.
                works = share == ALONE or number == turn % len(waiting)
                _tell(pipe, share if works else RESTING)
            if stop.is_set():
                raise StoppedError


def _take(pipe: Connection, child: BaseProcess) -> None:
    try:
        outcome = pipe.recv()
    except EOFError:
        child.join(_END_S)
        raise TransientError(
            f"a process of the rebuild ended by itself (exit code {child.exitcode}). Run the"
            " command again: the build resumes from its own positions."
        ) from None
    if outcome is not None:
        raise RefusedError(outcome)


def _tell(pipe: Connection, share: float) -> None:
    try:
        pipe.send(share)
    except OSError:  # it has just ended; what it says is still to be read
        return


def _share(load: Load, number: int, count: int) -> Load:
    mine = tuple(p for p in load.partitions if p[1] % count == number)
    return Load(
        target=load.target,
        partitions=mine,
        until={p: n for p, n in load.until.items() if p in mine},
        letters={p: found for p, found in load.letters.items() if p in mine},
        rate=None if load.rate is None else load.rate / count,
    )


def _child(settings: IngestSettings, load: Load, pipe: Connection) -> None:
    """What runs in a process of its own."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    os.nice(_NICE)
    tune_interpreter()
    stop = threading.Event()
    pacer = Pacer(stop, rate=load.rate)
    threading.Thread(target=_listen, args=(pipe, pacer, stop), daemon=True).start()
    outcome: str | None = None
    try:
        with _builder(settings, load, stop) as builder:
            builder.go_to(load.until, load.letters, pace=pacer)
    except RefusedError as error:
        outcome = str(error)
    except StoppedError:
        return
    pipe.send(outcome)


def _listen(pipe: Connection, pacer: Pacer, stop: threading.Event) -> None:
    """Take the share from the parent; its end of the pipe closes when it ends."""
    while True:
        try:
            pacer.share = pipe.recv()
        except (EOFError, OSError):
            stop.set()
            return
