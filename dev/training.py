"""Make the archives that let Kafka and the registry start in half the time.

Stands apart because it is no part of starting: it runs beside the servers of a first start, in
idle time only, with servers of its own that are thrown away, and may be broken off at any moment.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from dev.cache import Say, cache_dir
from dev.java import JavaProgram
from dev.kafka import KafkaCluster
from dev.registry import Registry

LOWEST_PRIORITY: Final = 19
POLL_S: Final = 0.05
WRITE_TIMEOUT_S: Final = 180.0


class _Trainee(Protocol):
    """A server that can be started with a command line of ours."""

    def start(self, command: Callable[..., list[str]] | None = None) -> None: ...
    def stop(self, *, timeout_s: float = ...) -> None: ...
    def close(self) -> None: ...


class Training:
    """Trains in the background whatever has no archive yet. Use once: `start`, then `stop`."""

    def __init__(self, *, kafka: JavaProgram, registry: JavaProgram, say: Say) -> None:
        self._say = say
        self._programs = (kafka, registry)
        self._stopping = threading.Event()
        self._trainee: _Trainee | None = None
        self._thread = threading.Thread(target=self._run, name="training", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Wait until everything is trained, at most `timeout_s`."""
        self._thread.join(timeout_s)

    def stop(self) -> None:
        """Break off; what was not finished is left for another time."""
        self._stopping.set()
        while self._thread.is_alive():  # it may be just about to start what was just ended
            if self._trainee is not None:
                self._trainee.close()
            self._thread.join(POLL_S)

    def _run(self) -> None:
        kafka, registry = self._programs
        trainees: tuple[tuple[JavaProgram, Callable[[], _Trainee]], ...] = (
            (registry, lambda: Registry(program=registry, niceness=LOWEST_PRIORITY)),
            (kafka, lambda: KafkaCluster(program=kafka, niceness=LOWEST_PRIORITY)),
        )
        for program, make in trainees:
            if not program.archive.exists() and not self._stopping.is_set():
                self._train(program, make)

    def _train(self, program: JavaProgram, make: Callable[[], _Trainee]) -> None:
        staging = Path(tempfile.mkdtemp(prefix=f".{program.name}.", dir=cache_dir()))
        self._trainee = trainee = make()
        archive = staging / "archive"

        def command(*arguments: str) -> list[str]:
            return program.training_command(archive, *arguments)

        try:
            trainee.start(command)
            trainee.stop(timeout_s=WRITE_TIMEOUT_S)
            if archive.exists() and not self._stopping.is_set():
                archive.rename(program.archive)
        except (OSError, RuntimeError) as error:
            # Broken off it had to fail; and otherwise only the next start is slower.
            if not self._stopping.is_set():
                self._say(f"no quick start prepared for {program.name}: {error}")
        finally:
            trainee.close()
            shutil.rmtree(staging)
