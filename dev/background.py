"""Servers that outlive the command that started them: `viewkeeper dev up|down|status|env`.

Stands apart because the servers of a `Stack` die with their parent. Here that parent is a detached
supervisor (`python -m dev.background`), which holds a file lock for as long as it lives: the lock,
not a process id, says whether servers are up. Addresses and passwords are in `state.json`. Whoever
brings servers up holds another lock meanwhile, so that two of them do not start over each other.
"""

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from dev.cache import Say, home_dir, say_nothing
from dev.stack import Stack, WantedPorts

UP_TIMEOUT_S: Final = 600.0  # a first start on a slow network downloads 206 MB
DOWN_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.05
TAKE_TIMEOUT_S: Final = 2.0  # `status` holds the lock for a moment while it looks
_supervisors: Final[list[subprocess.Popen[bytes]]] = []
"""What this process has started and leaves behind: Python complains of a child that is let go."""
PREFERRED: Final = WantedPorts(postgres=25432, kafka=29092, registry=28081)


class NotUpError(RuntimeError):
    """The background servers are not up, or could not be brought up or down."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is up: the supervisor's process id, the number of brokers, and the settings."""

    pid: int
    brokers: int
    environment: Mapping[str, str]


def state_dir() -> Path:
    """Where the state, the lock and the log of the supervisor lie."""
    return home_dir() / "dev"


def up(*, brokers: int = 1, say: Say = say_nothing) -> Status:
    """Bring the servers up in the background; returns when all answer, at once if they were up.

    Where somebody else is bringing them up, those are waited for.
    """
    state_dir().mkdir(parents=True, exist_ok=True)
    with _alone():
        running = status() or _started(brokers, say)
    if running.brokers != brokers:
        raise NotUpError(
            f"servers with {running.brokers} broker(s) are up already: "
            "run `viewkeeper dev down` first"
        )
    return running


@contextmanager
def _alone() -> Iterator[None]:
    """While inside, nobody else brings servers up in this checkout."""
    with _starting_path().open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _started(brokers: int, say: Say) -> Status:
    _state_path().unlink(missing_ok=True)
    if not _is_locked(_lock_path()):
        _lock_path().write_text("")  # not the id of a supervisor of earlier
    with _log_path().open("wb") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "dev.background", str(brokers)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _supervisors.append(supervisor)
    return _wait_up(supervisor, say)


def down() -> bool:
    """Stop the servers and remove their data, also while they start; False if none were up."""
    pid = _supervisor_pid()
    if pid is None:
        return False
    _signal(pid, signal.SIGTERM)
    if not _unlocked_within(DOWN_TIMEOUT_S):
        _signal(pid, signal.SIGKILL)  # its servers die with it
        if not _unlocked_within(DOWN_TIMEOUT_S):
            raise NotUpError(f"the supervisor (pid {pid}) does not end; see {_log_path()}")
    for supervisor in _supervisors:
        if supervisor.pid == pid:
            supervisor.wait(DOWN_TIMEOUT_S)
    _state_path().unlink(missing_ok=True)
    return True


def status() -> Status | None:
    """What is up; None if nothing is (or is not yet)."""
    try:
        state = _state_path().read_text()
    except FileNotFoundError:
        return None
    return Status(**json.loads(state)) if _is_locked(_lock_path()) else None


def env() -> str:
    """Lines for `eval`: the settings of the servers that are up."""
    running = status()
    if running is None:
        raise NotUpError("no servers are up: run `viewkeeper dev up`")
    lines = (f"export {k}={shlex.quote(v)}\n" for k, v in running.environment.items())
    return "".join(lines)


def supervise(brokers: int) -> None:
    """The supervisor: take the lock, start, write the state, wait for SIGTERM, stop."""
    state_dir().mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with _lock_path().open("a+") as lock:
        _take(lock)
        with Stack(brokers=brokers, ports=PREFERRED, say=_tell) as stack:
            if not stop.is_set():
                _write_state(Status(os.getpid(), brokers, stack.environment()))
            stop.wait()
        _state_path().unlink(missing_ok=True)


def _take(lock: IO[str]) -> None:
    deadline = time.monotonic() + TAKE_TIMEOUT_S
    while not _taken(lock):
        if time.monotonic() > deadline:
            raise NotUpError("another command is bringing servers up in this checkout")
        time.sleep(POLL_S)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_state(state: Status) -> None:
    draft = _state_path().with_suffix(".draft")
    draft.touch(mode=0o600)  # it holds passwords
    draft.write_text(json.dumps(asdict(state)))
    draft.rename(_state_path())


def _wait_up(supervisor: subprocess.Popen[bytes], say: Say) -> Status:
    deadline = time.monotonic() + UP_TIMEOUT_S
    with _log_path().open() as log:
        while (running := status()) is None:
            for line in log:
                say(line.rstrip())
            try:
                supervisor.wait(POLL_S)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    supervisor.terminate()
                    raise NotUpError(
                        f"servers not up within {UP_TIMEOUT_S:g} s: {_log_path()}"
                    ) from None
            else:
                if supervisor.returncode == 0:
                    raise NotUpError("the servers were told to stop while they started")
                raise NotUpError(f"the servers could not be started:\n{_log_path().read_text()}")
        for line in log:
            say(line.rstrip())
    return running


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _unlocked_within(timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while _is_locked(_lock_path()):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _supervisor_pid() -> int | None:
    """The supervisor's process id, waited for where one is being started; None: there is none."""
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while _is_locked(_lock_path()) or _is_locked(_starting_path()):
        written = _lock_path().read_text() if _lock_path().exists() else ""
        if written and _is_locked(_lock_path()):
            return int(written)
        if time.monotonic() > deadline:
            raise NotUpError(f"what is being started does not come up; see {_log_path()}")
        time.sleep(POLL_S)
    return None


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(pid, number)


def _starting_path() -> Path:
    return state_dir() / "starting.lock"


def _lock_path() -> Path:
    return state_dir() / "supervisor.lock"


def _log_path() -> Path:
    return state_dir() / "supervisor.log"


def _state_path() -> Path:
    return state_dir() / "state.json"


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    supervise(int(sys.argv[1]))
