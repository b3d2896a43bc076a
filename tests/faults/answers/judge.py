"""Every answer is what the log says at the answer's own position, all of it (I4).

The positions of one server form a chain (I6), so that one walk along the log meets every answer.
Pure, but for the registry that the oracle asks.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.faults.answers.questions import compared, due
from tests.faults.answers.sessions import Answer, behind
from tests.faults.oracle import Record
from tests.faults.oracle.events import FindSchema
from tests.faults.oracle.fold import Recorded
from tests.faults.oracle.following import Following, Position


@dataclass(slots=True)
class Judgement:
    """What was held against the log, and what is wrong, by invariant."""

    judged: int = 0
    positions: int = 0
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def judge(
    answers: Sequence[Answer], log: Iterable[Record], find: FindSchema, recorded: Recorded
) -> Judgement:
    """Walk along the log from answer to answer."""
    views = Following(log, find, recorded=recorded)
    made = Judgement()
    at: Position = {}
    for answer in sorted(answers, key=lambda answer: sum(answer.position.values())):
        if behind(answer.position, at):
            made.problems["I6 positions"].append(f"{answer.position} beside {at}")
            continue
        if answer.position != at:
            at = answer.position
            views.go_on(at)
            made.positions += 1
        made.judged += 1
        if said := _wrong(answer, views):
            made.problems["I4 snapshots"].append(said)
    return made


def _wrong(answer: Answer, views: Following) -> str | None:
    has = compared(answer.question, json.loads(answer.body)["data"])
    must = due(answer.question, views)
    if has == must:
        return None
    question = answer.question
    return (
        f"{question.kind} {dict(question.variables)} at {dict(answer.position)}:"
        f" {first_difference(has, must)}"
    )


def first_difference(has: object, must: object, path: str = "data") -> str:
    """Where two answers part, and what they say there."""
    if isinstance(has, dict) and isinstance(must, dict) and has.keys() == must.keys():
        name = next(name for name in has if has[name] != must[name])
        return first_difference(has[name], must[name], f"{path}.{name}")
    if isinstance(has, list) and isinstance(must, list) and len(has) == len(must):
        at = next(at for at in range(len(has)) if has[at] != must[at])
        return first_difference(has[at], must[at], f"{path}[{at}]")
    return f"{path} is {has!r}, must be {must!r}"[:600]
