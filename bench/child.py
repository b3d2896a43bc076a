"""A measured child process: started, waited for, always ended; what it cost in time and memory.

Stands apart from `dev/process.py` because a benchmark needs what the kernel counted for a process
that has ended, which is told once, to whoever reaps it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

STOP_TIMEOUT_S: Final = 20.0
TAIL_BYTES: Final = 3000
_MAXRSS_PER_MB: Final = 1024 * (1024 if sys.platform == "darwin" else 1)


class ChildFailedError(RuntimeError):
    """A contestant ended with an error or not in time. The message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What an ended process took: itself and the children it waited for."""

    exit_code: int
    cpu_s: float
    peak_rss_mb: float


class Child:
    """One run of one program, its output in a log. As a context manager it is ended on leaving."""

    def __init__(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str], log_path: Path
    ) -> None:
        self.name = name
        self.log_path = log_path
        self.started_at = time.time()
        with log_path.open("wb") as log:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self._usage: Usage | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._reap, name=f"reap-{name}", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return not self._ended.is_set()

    def ends_within(self, timeout_s: float) -> bool:
        """Wait for the end; whether it came in time."""
        return self._ended.wait(timeout_s)

    def result(self, timeout_s: float) -> Usage:
        """Wait until the process has ended well. ChildFailedError: it did not, or not in time."""
        if not self.ends_within(timeout_s):
            raise ChildFailedError(self.report(f"did not end within {timeout_s:g} s"))
        usage = self._usage
        if usage is None or usage.exit_code != 0:
            raise ChildFailedError(self.report(f"ended with {usage.exit_code if usage else '?'}"))
        return usage

    def stop(self) -> Usage | None:
        """Ask the process to end, insist after a while; what it cost."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.running:
                os.kill(self.pid, number)
                self.ends_within(STOP_TIMEOUT_S)
        return self._usage

    def report(self, what: str) -> str:
        """A sentence with the end of the log."""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            tail = log.read().decode(errors="replace")
        return f"{self.name} {what}; the end of its log:\n{tail}"

    def _reap(self) -> None:
        _, status, usage = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._popen.returncode = code  # reaped here: Popen must not wait again
        cpu_s = usage.ru_utime + usage.ru_stime
        self._usage = Usage(code, cpu_s, usage.ru_maxrss / _MAXRSS_PER_MB)
        self._ended.set()


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory of a running process, now and at its peak. Reads /proc: Linux only."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if line.startswith(("VmRSS", "VmHWM")))
    now_kb, peak_kb = (int(found[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    return now_kb / 1024, peak_kb / 1024


def cpu_s(pid: int, *, children: bool = False) -> float:
    """CPU seconds of a running process, with its ended children where asked. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11 : 15 if children else 13])
    return ticks / os.sysconf("SC_CLK_TCK")
