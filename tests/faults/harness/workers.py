"""Worker processes to be killed, frozen and woken: `viewkeeper ingest` as its users run it.

Stands apart because it knows how a worker is started and asked, and nothing of what it works on.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dev.ports import LOOPBACK, free_port
from dev.process import OwnedProcess, Program
from tests.fixtures.waiting import PATIENCE_S, eventually

SESSION_TIMEOUT_S: Final = 2.0
"""Short, so that a frozen owner is replaced within a few seconds."""
QUICK: Final = {
    "VIEWKEEPER_KAFKA_SESSION_TIMEOUT_MS": str(int(SESSION_TIMEOUT_S * 1000)),
    "VIEWKEEPER_KAFKA_HEARTBEAT_INTERVAL_MS": "300",
    "VIEWKEEPER_KAFKA_RECONNECT_BACKOFF_MAX_MS": "500",
    "VIEWKEEPER_BATCH_ROWS": "50",
    "VIEWKEEPER_BATCH_MS": "50",
}
_IS_TOLD: Final = re.compile(r"event=(?:fenced|lost|\"no longer a member\")")
_ASKS_FOR_IT: Final = "start this worker again"
_LAST_WORDS: Final = 12_000


@dataclass(frozen=True, slots=True)
class Use:
    """What a process holds of the machine."""

    resident_kb: int
    open_files: int


class WorkerProcess:
    """One worker. It may be started again after it ended, under the same name."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.ops_port = free_port()
        program = Program(
            name=f"worker {name}",
            command=[str(Path(sys.executable).with_name("viewkeeper")), "ingest"],
            cwd=folder,
            environment={
                **{k: v for k, v in os.environ.items() if not k.startswith("VIEWKEEPER_")},
                **QUICK,
                **environment,
                "VIEWKEEPER_OPS_PORT": str(self.ops_port),
            },
        )
        self.process = OwnedProcess(program, folder / f"{name}.log")
        self._said_before = 0

    @property
    def owner(self) -> str:
        """How its rows in `positions` name it."""
        return f"{socket.gethostname()}/{self.process.pid}"

    @property
    def _ops(self) -> str:
        return f"http://{LOOPBACK}:{self.ops_port}"

    @property
    def log(self) -> str:
        """Everything that it has said."""
        return self.process.log_path.read_text("utf-8", errors="replace")

    def start(self) -> None:
        """Start; returns when its ops port answers."""
        self.launch()
        self.process.wait_ready(lambda: self._get("/healthz") is not None, timeout_s=PATIENCE_S)

    def launch(self) -> None:
        """Start, and do not wait for anything."""
        self._said_before = len(self.log) if self.process.log_path.exists() else 0
        self.process.start()

    def supervise(self) -> None:
        """What whoever supervises workers does: one that ended and asks for it starts again."""
        if not self.process.running and self.ended_by_itself and _ASKS_FOR_IT in self.said:
            self.launch()

    @property
    def ended_by_itself(self) -> bool:
        """Whether it has run, and ended with a code and by no signal."""
        return self.process.log_path.exists() and self.process.wait(0) > 0

    @property
    def replaced(self) -> int:
        """How often it was told that somebody else owns what was its own."""
        return len(_IS_TOLD.findall(self.log))

    @property
    def said(self) -> str:
        """What it has said since it was started last."""
        return self.log[self._said_before :]

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def freeze(self) -> None:
        """SIGSTOP; returns when it is in state T."""
        self.process.freeze()

    @property
    def frozen(self) -> bool:
        """Whether it is in state T, also by its own doing."""
        return self.process.frozen

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.thaw()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.request_stop()
        return self.process.wait(PATIENCE_S)

    def ready(self) -> bool:
        """Whether it says that it is ready, now."""
        return self._get("/readyz") is not None

    def problems(self) -> list[str]:
        """Why it is not ready, in its own sentences; none where it is, or does not answer."""
        try:
            urllib.request.urlopen(f"{self._ops}/readyz", timeout=2).close()
        except urllib.error.HTTPError as error:
            with error:
                return list(json.load(error)["problems"])
        except OSError:
            return []
        return []

    def whereabouts(self) -> str:
        """Where each of its threads is, behind the last that it said: for a test that failed."""
        if not self.frozen:
            said = len(self.log)
            self.process.send(signal.SIGUSR1)
            eventually(
                lambda: "Current thread" in self.log[said:],
                PATIENCE_S,
                f"worker {self.name} says where its threads are",
            )
        return self.log[-_LAST_WORDS:]

    def count(self, metric: str) -> float:
        """A counter of its metrics page, its labels summed; 0 where it does not answer."""
        page = self._get("/metrics") or ""
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in page.splitlines()
            if line.startswith((f"{metric} ", f"{metric}{{"))
        )

    def use(self) -> Use:
        """Memory and open files, from the process table."""
        home = Path(f"/proc/{self.process.pid}")
        resident = next(
            line for line in (home / "status").read_text().splitlines() if line.startswith("VmRSS")
        )
        return Use(int(resident.split()[1]), sum(1 for _ in (home / "fd").iterdir()))

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"{self._ops}{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return None
