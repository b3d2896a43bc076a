"""I2, the offset chain: each change of a position begins where the one before it ended, and every
epoch of a partition has one writer.

A trigger that only tests install writes each change of `positions` into a table, in the changing
transaction: what was rolled back is not there. The row lock orders the changes of a partition.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, pairwise

import psycopg

_INSTALL = """
CREATE SCHEMA fault_checks;
CREATE TABLE fault_checks.chain (
    number bigserial PRIMARY KEY, topic text, partition int, old_next bigint, new_next bigint,
    old_epoch bigint, new_epoch bigint, owner text, writer text);
CREATE FUNCTION fault_checks.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault_checks.chain
        (topic, partition, old_next, new_next, old_epoch, new_epoch, owner, writer)
    VALUES (NEW.topic, NEW.partition,
        CASE WHEN TG_OP = 'INSERT' THEN 0 ELSE OLD.next_offset END, NEW.next_offset,
        CASE WHEN TG_OP = 'INSERT' THEN 0 ELSE OLD.owner_epoch END, NEW.owner_epoch,
        NEW.owner, current_setting('application_name'));
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OF next_offset, owner_epoch ON {build}.positions
    FOR EACH ROW EXECUTE FUNCTION fault_checks.note();
"""


@dataclass(frozen=True, slots=True)
class Link:
    """One change of a position, as the trigger saw it."""

    topic: str
    partition: int
    old_next: int
    new_next: int
    old_epoch: int
    new_epoch: int
    owner: str | None
    writer: str
    """The application name of the session that made the change: it ends with the worker's."""

    @property
    def moves(self) -> bool:
        """Whether the position moved."""
        return self.new_next != self.old_next

    @property
    def draws(self) -> bool:
        """Whether an epoch was drawn."""
        return self.new_epoch != self.old_epoch


def install(dsn: str, build: str = "build_1") -> None:
    """Install the trigger on a build's positions."""
    with psycopg.connect(dsn) as connection:
        connection.execute(_INSTALL.replace("{build}", build))


def read(dsn: str) -> list[Link]:
    """Every change, by partition and in order."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT topic, partition, old_next, new_next, old_epoch, new_epoch, owner, writer"
            " FROM fault_checks.chain ORDER BY topic, partition, number"
        ).fetchall()
    return [Link(*row) for row in rows]


def problems(links: Iterable[Link]) -> list[str]:
    """Where the chain is broken; empty: it holds."""
    found: list[str] = []
    for (topic, partition), of_partition in groupby(links, lambda k: (k.topic, k.partition)):
        place, chain = f"{topic}:{partition}", list(of_partition)
        found += [f"{place}: {said}" for link in chain for said in _alone(link)]
        found += [f"{place}: {said}" for pair in pairwise(chain) for said in _joined(*pair)]
        found += [f"{place}: {said}" for said in _writers(chain)]
    return found


def takeovers(links: Iterable[Link], *, by: str | None = None) -> int:
    """How often a partition changed hands from one process to another; `by`: to this one."""
    count = 0
    for _, of_partition in groupby(links, lambda link: (link.topic, link.partition)):
        for one, next_one in pairwise(of_partition):
            changed = one.owner is not None and one.owner != next_one.owner
            count += changed and by in (None, next_one.owner)
    return count


def _alone(link: Link) -> list[str]:
    if link.new_next < link.old_next:
        return [f"the position went back from {link.old_next} to {link.new_next}"]
    if link.new_epoch not in (link.old_epoch, link.old_epoch + 1):
        return [f"the epoch went from {link.old_epoch} to {link.new_epoch}"]
    if link.draws and link.moves:
        return [f"one change moved position and epoch {link.new_epoch}"]
    return []


def _joined(one: Link, other: Link) -> list[str]:
    if (other.old_next, other.old_epoch) != (one.new_next, one.new_epoch):
        left, met = (one.new_next, one.new_epoch), (other.old_next, other.old_epoch)
        return [f"(position, epoch) was left at {left} and met at {met}"]
    return []


def _writers(chain: Iterable[Link]) -> list[str]:
    owners: dict[int, set[str]] = {}
    for link in chain:
        if link.moves:
            owners.setdefault(link.new_epoch, set()).add(link.writer)
    return [f"epoch {e} was written by {sorted(o)}" for e, o in owners.items() if len(o) > 1]
