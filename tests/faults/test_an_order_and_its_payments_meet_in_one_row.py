"""An order and its payments applied by two workers at once, each holding one of the topics."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest
from psycopg import sql

from tests.faults.harness.bites import Bites
from tests.faults.harness.field import Field
from tests.faults.harness.ground import Ground
from tests.faults.harness.workers import WorkerProcess
from tests.fixtures.content import Writer, following, order_content, payment_content
from tests.fixtures.traffic import START_MS, Record
from tests.fixtures.waiting import PATIENCE_S, eventually

MET: Final = "an order and its payments met in its row"
ORDERS, PAYMENTS = ("orders", 0), ("payments", 0)
PAIRS: Final = 20
MANY: Final = 10_000
LEAST_WAITS: Final = 100
LONG: Final = "10ms"
_HELD_S: Final = 0.05
_S: Final = PATIENCE_S
_BLOCKED: Final = """
    SELECT count(*) FROM pg_stat_activity a
    JOIN pg_stat_activity h ON h.pid = ANY (pg_blocking_pids(a.pid))
    WHERE a.application_name LIKE %s AND h.application_name LIKE %s
"""


@pytest.fixture
def narrow(field: Field, tmp_path: Path, bites: Bites) -> Iterator[Ground]:
    """One partition of each topic, so that two workers hold one topic each."""
    with field.ground(tmp_path, bites, partitions=1) as made:
        yield made


class Pairs:
    """Orders, each with a payment; the next versions of both when they are asked for again."""

    def __init__(self, ground: Ground, *, seed: int, count: int) -> None:
        self._rng = random.Random(seed)
        self._write = Writer(ground.place.ids)
        self._orders = [
            order_content(self._rng, f"pair-{seed}-{number:06d}", customers=7)
            for number in range(count)
        ]
        self._payments = [
            payment_content(self._rng, order, 0) | {"status": "CAPTURED"} for order in self._orders
        ]

    def orders(self) -> list[Record]:
        """One event of each order."""
        made = [self._record("orders", content) for content in self._orders]
        self._orders = [following(self._rng, content) for content in self._orders]
        return made

    def payments(self) -> list[Record]:
        """One event of each payment."""
        made = [self._record("payments", content) for content in self._payments]
        self._payments = [following(self._rng, content) for content in self._payments]
        return made

    def _record(self, topic: str, content: dict[str, object]) -> Record:
        key = str(content["order_id"]).encode()
        return Record(topic, key, self._write(topic, content), START_MS, "event")


def _holders(ground: Ground) -> dict[tuple[str, int], WorkerProcess]:
    """Two workers, and which of them holds which topic."""
    workers = {worker.owner: worker for worker in (ground.worker(), ground.worker())}
    ground.wait_for_share(*workers.values(), timeout_s=_S)
    return {partition: workers[owner] for partition, owner in ground.owners().items()}


def _blocked(ground: Ground, waiting: WorkerProcess, holding: WorkerProcess) -> bool:
    ((count,),) = ground.ask(_BLOCKED, f"%{waiting.owner}", f"%{holding.owner}")
    return bool(count)


def _meet(
    ground: Ground,
    one: tuple[WorkerProcess, Iterable[Record]],
    other: tuple[WorkerProcess, Iterable[Record]],
) -> None:
    """One worker is about to commit when the other comes to the same rows, and waits there."""
    held = ground.proxy.hold()
    ground.send(one[1])
    assert held.caught.wait(_S), "no batch came to its commit"
    assert held.application.endswith(one[0].owner)
    ground.send(other[1])
    eventually(lambda: _blocked(ground, other[0], one[0]), _S, "the second waits for the first")
    ground.bites.bit(MET)
    held.let_go.set()
    ground.wait_until_in()


def test_an_order_and_its_payments_wait_for_each_other_in_its_row(narrow: Ground) -> None:
    holders = _holders(narrow)
    for seed in range(3):
        for orders_first in (True, False):
            pairs = Pairs(narrow, seed=2 * seed + orders_first, count=PAIRS)
            for _new_then_known in range(2):
                order = (holders[ORDERS], pairs.orders())
                payment = (holders[PAYMENTS], pairs.payments())
                _meet(narrow, *((order, payment) if orders_first else (payment, order)))
    narrow.must_be_right()


def _waits(log: Path, from_byte: int) -> int:
    """How often the server says that somebody waits for a lock for longer than `LONG`."""
    return log.read_bytes()[from_byte:].count(b"still waiting for")


@pytest.mark.proof
@pytest.mark.timeout(1_800)
def test_ten_thousand_orders_and_payments_meet_under_load(
    field: Field, narrow: Ground, record_property: Callable[[str, object], None]
) -> None:
    """Both workers come to the same orders at the same time, and each holds its rows for a while
    before it commits: the server counts who waits for whom, and looks for deadlocks at once."""
    server, database = field.stack.postgres, narrow.place.dsn.rpartition("/")[2]
    for setting in ("log_lock_waits = on", f"deadlock_timeout = '{LONG}'"):
        change = sql.SQL("ALTER DATABASE {} SET " + setting)
        server.execute(change.format(sql.Identifier(database)))
    pairs = Pairs(narrow, seed=99, count=MANY)
    _holders(narrow)
    log = server.process.log_path
    from_byte = log.stat().st_size
    narrow.proxy.delay_s = _HELD_S
    both = [one for pair in zip(pairs.orders(), pairs.payments(), strict=True) for one in pair]
    trickle = narrow.trickle(both, per_s=500)
    eventually(lambda: sum(narrow.positions().values()) >= len(both), 900, "all pairs are in")
    trickle.stop()
    waits = _waits(log, from_byte)
    narrow.bites.bit(MET, waits)
    record_property("said", f"{MANY:,} pairs, {waits} times one waited for the other")
    assert waits >= LEAST_WAITS, "they hardly met"
    narrow.must_be_right()
    ((deadlocks,),) = narrow.ask(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == 0
    assert not [worker for worker in narrow.workers if "deadlock" in worker.log]
