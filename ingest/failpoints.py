"""Named points of the worker at which a test makes it die, freeze or fail.

Stands apart so that the pages that call it show one line, and so that nothing of it runs while it
is off: `reached` then looks at one name. VIEWKEEPER_FAILPOINTS asks for faults as
`point:action:passing`, several with commas: `before-commit:kill:3` kills the process the third time
that it is about to commit. VIEWKEEPER_FAILPOINTS_FILE names the file into which each is written
just before it happens: what is not there did not happen.
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from ingest.errors import TransientError

AFTER_POLL = "after-poll"
AFTER_DECODE = "after-decode"
AFTER_BEGIN = "after-begin"
AFTER_STAGE = "after-stage"
AFTER_UPSERT = "after-upsert"
AFTER_AGGREGATES = "after-aggregates"
BEFORE_COMMIT = "before-commit"
AFTER_COMMIT = "after-commit"
IN_ASSIGN = "in-assign"
IN_REVOKE = "in-revoke"
IN_OUTBOX = "in-outbox"

POINTS = (
    AFTER_POLL,
    AFTER_DECODE,
    AFTER_BEGIN,
    AFTER_STAGE,
    AFTER_UPSERT,
    AFTER_AGGREGATES,
    BEFORE_COMMIT,
    AFTER_COMMIT,
    IN_ASSIGN,
    IN_REVOKE,
    IN_OUTBOX,
)
"""All points, in the order in which a batch passes them; those of a rebalance and of the outbox
last.

A poll without records passes nothing. `after-begin` is before the first row is staged, within COPY
where there are many; `after-upsert` within the pipeline (sent, not answered), and so are the two
before it where there are few; `after-aggregates` behind it: every fence was read as hit.
`in-assign` has drawn epochs that are not committed; `in-revoke` has waited for the batch in hand;
`in-outbox` has sent dead letters and not noted it.
"""
KILL, STOP, FAIL = "kill", "stop", "fail"
ACTIONS = (KILL, STOP, FAIL)
"""SIGKILL; SIGSTOP, until somebody sends SIGCONT; a step that fails as if its server were away."""
_NEVER_FAILS = {IN_REVOKE}
"""Nothing is asked of anybody there, so that there is no failure to stand for."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to happen at one passing of one point."""

    point: str
    action: str
    passing: int


def parse(asked: str) -> tuple[Fault, ...]:
    """The faults that `point:action:passing,...` asks for. ValueError: it is not that."""
    return tuple(_one(part.strip()) for part in asked.split(",")) if asked.strip() else ()


def _one(asked: str) -> Fault:
    point, _, rest = asked.partition(":")
    action, _, passing = rest.partition(":")
    if point not in POINTS:
        raise ValueError(f"{point!r} is no failpoint; there are {', '.join(POINTS)}")
    if action not in ACTIONS:
        raise ValueError(f"{action!r} is no action; there are {', '.join(ACTIONS)}")
    if action == FAIL and point in _NEVER_FAILS:
        raise ValueError(f"{point} can't fail: nothing is asked of a server there")
    if not (passing.isascii() and passing.isdigit()) or int(passing) < 1:
        raise ValueError(f"{asked!r} does not end in the number of a passing, 1 or more")
    return Fault(point, action, int(passing))


class _Armed:
    """Counts how often each point is passed, and acts where that was asked for."""

    def __init__(self, faults: tuple[Fault, ...], evidence: Path) -> None:
        self._actions = {(fault.point, fault.passing): fault.action for fault in faults}
        self._evidence = evidence
        self._passed: dict[str, int] = {}
        self._lock = Lock()

    def reached(self, point: str) -> None:
        with self._lock:
            passing = self._passed[point] = self._passed.get(point, 0) + 1
            action = self._actions.get((point, passing))
            if action is not None:
                with self._evidence.open("a") as file:
                    file.write(f"{os.getpid()} {point} {action} {passing}\n")
        if action == FAIL:
            raise TransientError(f"failpoint {point}, passing {passing}")
        if action is not None:
            os.kill(os.getpid(), signal.SIGKILL if action == KILL else signal.SIGSTOP)


_armed: _Armed | None = None


def arm(faults: tuple[Fault, ...], evidence: Path | None) -> None:
    """Switch these on for the process, and all others off. Once at start, before any thread."""
    global _armed
    if not faults:
        _armed = None
        return
    if evidence is None:
        raise ValueError("failpoints need a file for their evidence")
    _armed = _Armed(faults, evidence)


def reached(point: str) -> None:
    """Say that this point is passed. TransientError: it was asked to fail now."""
    if _armed is not None:
        _armed.reached(point)
