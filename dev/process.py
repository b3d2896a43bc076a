"""A child process that is owned: started with a log, waited for, always stopped and reaped.

Stands apart because every embedded server needs exactly this, and nothing else may start one.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LEASH: Final = Path(__file__).with_name("leash.py")
POLL_S: Final = 0.02
TAIL_BYTES: Final = 4000


class ServerFailedError(RuntimeError):
    """A server ended, or was not ready in time. The message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged user of this machine to run a server under."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Program:
    """What to run and how.

    `death_signal` is what the kernel sends when we die without having stopped it.
    """

    name: str
    command: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]
    account: Account | None = None
    death_signal: signal.Signals = signal.SIGKILL
    niceness: int = 0


class OwnedProcess:
    """One run of one program. After `stop` or `kill` it can be started again.

    It has a session of its own, so that Ctrl-C in a terminal reaches us alone and the stop stays
    clean; and it dies with us, so that a crash leaves nothing running.
    """

    def __init__(self, program: Program, log_path: Path) -> None:
        self.program = program
        self.log_path = log_path
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; of the last run if it has ended."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether the process exists. A frozen one does."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start the program. Returns at once: `wait_ready` tells when it serves."""
        if self.running:
            raise ServerFailedError(f"{self.program.name} is already running (pid {self.pid})")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            command = _leashed(self.program)
            self._popen = _SPAWNER.run(
                lambda: subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.program.cwd,
                    env=dict(self.program.environment),
                    start_new_session=True,
                )
            )

    def wait_ready(self, check: Callable[[], bool], *, timeout_s: float) -> None:
        """Return once `check` holds; ServerFailedError if the process ends or time is up."""
        deadline = time.monotonic() + timeout_s
        while not check():
            if time.monotonic() > deadline:
                raise ServerFailedError(self._report(f"was not ready within {timeout_s:g} s"))
            if self._ends_within(POLL_S):
                raise ServerFailedError(
                    self._report(f"ended with code {self._started().returncode}")
                )

    def wait(self, timeout_s: float) -> int:
        """Wait for the process to end by itself and return its exit code."""
        try:
            return self._started().wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ServerFailedError(self._report(f"did not end within {timeout_s:g} s")) from None

    def stop(
        self, *, with_signal: signal.Signals = signal.SIGTERM, timeout_s: float = 15.0
    ) -> None:
        """End the process: ask first, and insist after `timeout_s`. Harmless when it has ended."""
        if not self.running:
            return
        self.send(with_signal)
        self.send(signal.SIGCONT)  # a frozen process cannot hear the first one
        if not self._ends_within(timeout_s):
            self.kill()

    def request_stop(self) -> None:
        """Ask the process to end without waiting for it: `stop` does the waiting."""
        if self.running:
            self.send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone from the process table."""
        if self.running:
            self.send(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait()

    def freeze(self) -> None:
        """SIGSTOP: the process keeps its sockets and locks, and does nothing until `thaw`."""
        self.send(signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while not self._is_frozen():
            if time.monotonic() > deadline or self._ends_within(POLL_S):
                raise ServerFailedError(self._report("could not be frozen"))

    @property
    def frozen(self) -> bool:
        """Whether it is stopped by a signal."""
        return self.running and self._is_frozen()

    def thaw(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process (not to its children)."""
        self._started().send_signal(number)

    def log_tail(self) -> str:
        """The end of the log, for error messages."""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            return log.read().decode(errors="replace")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._popen is None:
            raise ServerFailedError(f"{self.program.name} has not been started")
        return self._popen

    def _ends_within(self, timeout_s: float) -> bool:
        try:
            self._started().wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _is_frozen(self) -> bool:
        if sys.platform != "linux":
            return True
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def _report(self, what: str) -> str:
        return f"{self.program.name} {what}; the end of {self.log_path}:\n{self.log_tail()}"


def _leashed(program: Program) -> list[str]:
    account = program.account
    return [
        sys.executable,
        "-I",
        "-S",
        str(LEASH),
        str(os.getpid()),
        str(int(program.death_signal)),
        str(account.uid) if account else "-",
        str(account.gid) if account else "-",
        str(program.niceness),
        *program.command,
    ]


class _Spawner:
    """The one thread that starts children.

    The kernel's death signal follows the *thread* that forked, not the process: a child started
    from a short-lived thread would be killed when that thread ends. This one never ends.
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[
            tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]
        ] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Call `start` on the thread and hand back what it returned or raised."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # a fork has no threads
                self._thread = threading.Thread(target=self._serve, name="spawner", daemon=True)
                self._thread.start()
        done: Future[subprocess.Popen[bytes]] = Future()
        self._orders.put((start, done))
        return done.result()

    def _serve(self) -> None:
        while True:
            start, done = self._orders.get()
            try:
                done.set_result(start())
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
                done.set_exception(error)


_SPAWNER: Final = _Spawner()
