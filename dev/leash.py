"""Become another program that dies with its parent: what stands between us and each server.

Runs as a script of its own (`python -I -S leash.py ...`), because everything it does has to happen
between fork and exec, where a program with threads must not run Python code of its own. It drops
root, asks the kernel for a signal at the parent's death, and executes the server in its place.

Arguments: parent pid, death signal, uid or "-", gid or "-", niceness, then the command.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Replace this process by the command; returns only by an error."""
    parent_pid, death_signal, uid, gid, niceness, *command = arguments
    os.nice(int(niceness))
    if uid != "-":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    # After setuid: a change of credentials clears the death signal (prctl(2)).
    _die_with_parent(int(death_signal))
    if os.getppid() != int(parent_pid):
        sys.exit("the process that asked for this server is gone")
    # Python ignores these two, and an ignored signal stays ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execv(command[0], command)


def _die_with_parent(death_signal: int) -> None:
    """Linux only: elsewhere a server can outlive a parent that was killed with SIGKILL."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")


if __name__ == "__main__":
    main(sys.argv[1:])
