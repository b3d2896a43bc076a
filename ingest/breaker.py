"""Pure: where reading a partition must stop, loudly, instead of going on.

More than half of the last 50 records dead, or 20 in a row: that is a wrong deploy, not bad data.
A record of an older leader epoch than one before it: that is another log than the one we have read.
In both cases the record that shows it is neither applied nor made a dead letter.

Records are judged one by one in the order of their offsets, so nothing depends on where a batch was
cut. Version conflicts do not count: they are found under the row's lock, and no deploy makes them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ingest.errors import Fault
from ingest.records import Dead, Item

WINDOW = 50
MOST_DEAD = 25
"""Of the last 50 records; one more opens the breaker."""
IN_A_ROW = 20

_ALL = (1 << WINDOW) - 1
_RUN = (1 << IN_A_ROW) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is remembered of the records of one partition, from its claim on.

    `dead` has one bit for each of the last records, the lowest for the last one, set where it
    became a dead letter. `leader_epoch` is the highest that was seen, -1 for none. Below the offset
    `loss_accepted_until` records do not count: an operator accepted that they are lost.
    """

    dead: int = 0
    leader_epoch: int = -1
    loss_accepted_until: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """The offset that a partition must not go past, and why, with the remedy."""

    offset: int
    reason: str


def judge(
    course: Course, items: Sequence[Item], *, recorded: Collection[int] = ()
) -> tuple[Course, Stop | None]:
    """Follow one partition over its next records: where it stands then, and whether it must stop.

    `recorded` are offsets whose dead letter exists already (a log that is read again): no loss is
    decided there, so they do not count. After a Stop the course is that of the records before it.
    """
    if not items:
        return course, None
    if not recorded and items[0].record.offset >= course.loss_accepted_until and _harmless(items):
        shifted = (course.dead << len(items)) & _ALL
        epochs = [item.record.leader_epoch for item in items]
        if _rises([course.leader_epoch, *epochs]):
            highest = max(course.leader_epoch, epochs[-1])
            return _moved(course, dead=shifted, leader_epoch=highest), None
    return _one_by_one(course, items, recorded)


def _harmless(items: Sequence[Item]) -> bool:
    return not any(type(item) is Dead for item in items)


def _rises(epochs: Sequence[int]) -> bool:
    """Whether no epoch is below the one before. Most often they are all the same."""
    return min(epochs) == max(epochs) or all(a <= b for a, b in pairwise(epochs))


def _one_by_one(
    course: Course, items: Sequence[Item], recorded: Collection[int]
) -> tuple[Course, Stop | None]:
    dead, leader_epoch = course.dead, course.leader_epoch
    for item in items:
        record = item.record
        if 0 <= record.leader_epoch < leader_epoch:
            stop = Stop(record.offset, _went_back(item, leader_epoch))
            return _moved(course, dead=dead, leader_epoch=leader_epoch), stop
        leader_epoch = max(leader_epoch, record.leader_epoch)
        if record.offset < course.loss_accepted_until or record.offset in recorded:
            continue
        if isinstance(item, Dead) and item.on_record:  # a build meets what was decided long ago
            continue
        shifted = (dead << 1 | isinstance(item, Dead)) & _ALL
        if isinstance(item, Dead) and _is_too_much(shifted):
            stop = Stop(record.offset, _gone_bad(item, shifted))
            return _moved(course, dead=dead, leader_epoch=leader_epoch), stop
        dead = shifted
    return _moved(course, dead=dead, leader_epoch=leader_epoch), None


def _moved(course: Course, *, dead: int, leader_epoch: int) -> Course:
    return Course(
        dead=dead, leader_epoch=leader_epoch, loss_accepted_until=course.loss_accepted_until
    )


def _is_too_much(dead: int) -> bool:
    return dead & _RUN == _RUN or dead.bit_count() > MOST_DEAD


def _gone_bad(item: Dead, dead: int) -> str:
    record, fault = item.record, item.fault
    many = (
        f"{IN_A_ROW} records in a row"
        if dead & _RUN == _RUN
        else f"{dead.bit_count()} of the last {WINDOW} records"
    )
    place = f"{record.topic} {record.partition}"
    return (
        f"{record.topic}:{record.partition} is stopped at offset {record.offset}: {many} would be"
        f" dead letters, the last one {_words(fault)}. That is a wrong deploy rather than bad data:"
        f" mend it and run `viewkeeper resume {place}`, or accept the loss with `viewkeeper resume"
        f' {place} --accept-loss` (docs/operating.md, "Stopped partition").'
    )


def _words(fault: Fault) -> str:
    return f"{fault.reason.value} ({str(fault)[:200]})"


def _went_back(item: Item, leader_epoch: int) -> str:
    record = item.record
    return (
        f"{record.topic}:{record.partition} is stopped at offset {record.offset}: its leader epoch"
        f" {record.leader_epoch} is older than {leader_epoch}, which was seen before it. The log"
        " was replaced by an older copy, and records that are in the views may be gone from it:"
        ' see docs/operating.md, "Log shorter than views".'
    )
