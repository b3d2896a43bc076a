"""Messages at the size limit of their topic, good ones and poison, among small neighbours."""

from __future__ import annotations

import random
from typing import Final

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.faults.harness.ground import Ground
from tests.fixtures.content import Writer, order_content
from tests.fixtures.traffic import START_MS, Record
from tests.fixtures.waiting import PATIENCE_S, eventually

LARGE: Final = "message at the size limit"
REFUSED: Final = "message past the size limit"
LIMIT: Final = 1_900_000
_ROOM: Final = 2_000
"""What the frame of a message, its key and the other fields of its event take at most."""


def _limit(ground: Ground, most_bytes: int) -> None:
    admin = ground.admin()  # must outlive the call: its end cancels what it was asked
    entry = ConfigEntry(
        "max.message.bytes", str(most_bytes), incremental_operation=AlterConfigOpType.SET
    )
    wanted = ConfigResource(ResourceType.TOPIC, "orders", incremental_configs=[entry])
    for done in admin.incremental_alter_configs([wanted]).values():
        done.result()


def _order(ground: Ground, order_id: str, *, size_bytes: int) -> Record:
    """An order whose one article has a name of so many bytes, none like the other."""
    rng = random.Random(order_id)
    sku = rng.randbytes(size_bytes // 2).hex()
    item = {"sku": sku, "quantity": 1, "unit_price": b"\x01"}
    content = order_content(rng, order_id, customers=3) | {"items": [item]}
    value = Writer(ground.place.ids)("orders", content)
    return Record("orders", order_id.encode(), value, START_MS, "event")


@pytest.mark.parametrize("batch_bytes", ["1000", pytest.param("16000000", marks=pytest.mark.proof)])
def test_messages_at_the_size_limit_land_with_their_neighbours(
    ground: Ground, batch_bytes: str
) -> None:
    _limit(ground, LIMIT)
    good = [_order(ground, f"large-{n}", size_bytes=LIMIT - _ROOM) for n in range(6)]
    first = good[0].value
    assert first is not None
    cut = Record("orders", b"large-cut", first[: len(first) // 2], START_MS, "poison")
    ground.send(
        [*ground.traffic(20, seed=71), *good, cut, *ground.traffic(20, seed=72, prefix="x")]
    )
    worker = ground.worker(BATCH_BYTES=batch_bytes)
    ground.must_be_right()
    rows = ground.ask("SELECT items FROM build_1.orders WHERE order_id LIKE %s", "large-%")
    assert [len(items[0]["sku"]) for (items,) in rows] == [LIMIT - _ROOM] * len(good)
    ((kept,),) = ground.ask("SELECT length(value) FROM ingest.dead_letters WHERE key = 'large-cut'")
    assert kept == len(first) // 2
    ground.bites.bit(LARGE, len(good) + 1)
    eventually(worker.ready, PATIENCE_S, "the worker is ready")


def test_a_message_past_the_limit_is_refused_to_its_producer(ground: Ground) -> None:
    _limit(ground, LIMIT)
    ground.send([_order(ground, "too-large", size_bytes=LIMIT + _ROOM)])
    ((_what, times),) = ground.ledger.unknown.items()
    assert times == 1
    ground.bites.bit(REFUSED)
    ground.worker()
    ground.send(ground.traffic(10, seed=73))
    ground.must_be_right()
