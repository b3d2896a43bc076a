"""One key is mended while the workers wait for a moment only, and nothing of others is touched."""

import random
import threading
from collections.abc import Mapping
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer

from ingest.decode import Decoder
from ingest.errors import TransientError
from ingest.records import Item, Record
from rebuild import repair, swap
from rebuild.keys import Scan
from tests.fixtures.content import Writer, order_content
from tests.fixtures.databases import Database
from tests.integration.rebuild.parts import (
    Log,
    Watcher,
    execute,
    value,
    wait_until_live_includes,
    worker,
)

OWNERS = {"order-of-cust": "cust", "order-of-custard": "custard", "order-of-xcust": "xcust"}
"""By order: its customer. The first one's name is found in the others'."""


def some_order(database: Database) -> str:
    """An order that is shown."""
    return str(value(database, "SELECT min(order_id) FROM build_1.orders WHERE visible"))


def corrupt(database: Database, order: str) -> None:
    """A cent too many."""
    execute(
        database, f"UPDATE build_1.orders SET amount = amount + 0.01 WHERE order_id = '{order}'"
    )


def mend(log: Log, database: Database, watcher: Watcher, **which: str) -> repair.Repaired:
    return repair.repair(log.settings(database), **which, stop=threading.Event(), say=watcher.say)


def tell_owners(log: Log) -> None:
    """An order of each customer."""
    write = Writer(log.ids)
    producer = Producer({"bootstrap.servers": log.bootstrap, "log_level": 0})
    for name, customer in OWNERS.items():
        event = order_content(random.Random(name), name, customers=9)
        value = write("orders", event | {"customer_id": customer})
        producer.produce("orders", value, name.encode())
    assert producer.flush(30) == 0


def test_a_customer_is_matched_exactly(log: Log, shop: Database, watcher: Watcher) -> None:
    tell_owners(log)
    with worker(log.settings(shop)):
        wait_until_live_includes(shop, log.end())
    for order in OWNERS:
        corrupt(shop, order)
    done = mend(log, shop, watcher, customer="cust")
    assert done.orders == ("order-of-cust",)
    assert any(change.startswith("orders order-of-cust: amount") for change in done.changes)
    rest = mend(log, shop, watcher, customer="custard")
    assert rest.orders == ("order-of-custard",)
    assert rest.changes


def test_a_schema_of_somebody_else_stays_whatever_its_name(
    log: Log, shop: Database, watcher: Watcher
) -> None:
    with psycopg.connect(shop.dsn) as owner:
        owner.execute("CREATE SCHEMA repair; CREATE TABLE repair.orders AS SELECT 7 AS mine")
    corrupt(shop, some_order(shop))
    assert mend(log, shop, watcher, order=some_order(shop)).changes
    assert value(shop, "SELECT mine FROM repair.orders") == 7


def test_all_but_the_last_moment_is_done_before_anything_is_locked(
    log: Log, shop: Database, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, lock = Decoder.decode, swap.lock_positions
    locked = threading.Event()
    decoded: dict[bool, int] = {False: 0, True: 0}

    def counted(self: Decoder, records: list[Record]) -> list[Item]:
        decoded[locked.is_set()] += len(records)
        return decode(self, records)

    def locking(*arguments: Any) -> Mapping[Any, int]:
        locked.set()
        return lock(*arguments)

    monkeypatch.setattr(Decoder, "decode", counted)
    monkeypatch.setattr(swap, "lock_positions", locking)
    corrupt(shop, some_order(shop))
    assert mend(log, shop, watcher, order=some_order(shop)).changes
    assert decoded[False] > 0
    assert decoded[True] == 0


def test_a_broker_that_is_silent_at_the_last_moment_is_let_go_of_and_tried_again(
    log: Log, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_on = Scan.read_on
    silent: list[Mapping[Any, int]] = []

    def silent_once(self: Scan, until: Mapping[Any, int], silence_s: float) -> bool:
        if silence_s <= 1 and not silent:
            silent.append(until)
            return False
        return read_on(self, until, silence_s)

    class Passing(Watcher):
        """A worker that goes on while the repair waits for its next try."""

        def say(self, line: str) -> None:
            Watcher.say(self, line)
            if line.startswith("let go"):
                with psycopg.connect(shop.dsn) as worker:
                    worker.execute("SELECT FROM ingest.builds FOR UPDATE NOWAIT")
                    worker.execute("SELECT FROM build_1.positions FOR UPDATE NOWAIT")

    monkeypatch.setattr(Scan, "read_on", silent_once)
    monkeypatch.setattr(repair, "_PAUSE_S", 0.0)
    corrupt(shop, some_order(shop))
    watcher = Passing()
    assert mend(log, shop, watcher, order=some_order(shop)).changes
    assert len(silent) == 1
    assert any(line.startswith("let go, and trying again: the broker") for line in watcher.lines)


def test_whoever_is_frozen_while_the_workers_wait_is_ended_by_the_server(
    log: Log, shop: Database, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = threading.Event()
    read_on = Scan.read_on

    def freeze(self: Scan, until: Mapping[Any, int], silence_s: float) -> bool:
        if silence_s <= 1:
            frozen.wait(0.5)
        return read_on(self, until, silence_s)

    monkeypatch.setattr(Scan, "read_on", freeze)
    monkeypatch.setattr(repair, "TRIES", 1)
    monkeypatch.setitem(repair.HOLD_LIMITS, "idle_in_transaction_session_timeout", "100ms")
    corrupt(shop, some_order(shop))
    with pytest.raises(TransientError, match="idle-in-transaction"):
        mend(log, shop, watcher, order=some_order(shop))
    monkeypatch.undo()
    assert mend(log, shop, watcher, order=some_order(shop)).changes
