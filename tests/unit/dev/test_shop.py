"""What the sample traffic holds."""

from collections import Counter
from datetime import UTC, datetime
from itertools import islice

from dev.shop import ORDERS, PAYMENTS, Record, Shop
from schemas.contracts import load
from schemas.encode import Encoder
from schemas.glance import glance

START_AT = datetime(2026, 1, 1, tzinfo=UTC)
CONTRACTS = {ORDERS: load("orders.avsc"), PAYMENTS: load("payments.avsc")}


def shop(seed: int = 1) -> Shop:
    encoders = {topic: Encoder(contract, 1).encode for topic, contract in CONTRACTS.items()}
    return Shop(encoders, seed=seed, start_at=START_AT)


def events(records: list[Record]) -> list[dict[str, object]]:
    return [
        dict(glance(record.value, CONTRACTS[record.topic].schema).fields)
        for record in records
        if record.value is not None and not record.kind.startswith("poison")
    ]


def test_the_same_seed_tells_the_same_story_byte_for_byte() -> None:
    assert list(shop().orders(200)) == list(shop().orders(200))
    assert list(shop().orders(50)) != list(shop(seed=2).orders(50))


def test_a_shop_that_is_not_told_to_stop_goes_on() -> None:
    assert len(list(islice(shop(), 5_000))) == 5_000


def test_everything_that_happens_in_a_shop_happens() -> None:
    records = list(shop().orders(2_000))
    kinds = Counter(record.kind.partition(":")[0] for record in records)
    assert kinds.keys() == {"event", "duplicate", "late", "tombstone", "poison"}
    assert kinds["poison"] < len(records) / 100
    seen = events(records)
    assert len({event["currency"] for event in seen}) >= 4
    assert any(event.get("discount") for event in seen)
    statuses = {event["status"] for event in seen}
    assert statuses >= {"DELIVERED", "CANCELLED", "CAPTURED", "REFUNDED", "FAILED", "VOIDED"}


def test_some_payments_come_before_their_order_and_most_after() -> None:
    first: dict[bytes, str] = {}
    for record in shop().orders(1_000):
        if record.key is not None and not record.kind.startswith("poison"):
            first.setdefault(record.key, record.topic)
    early = sum(topic == PAYMENTS for topic in first.values())
    assert 50 <= early <= 200


def test_what_an_order_says_adds_up() -> None:
    for record in shop().orders(300):
        if record.topic == ORDERS and record.value and not record.kind.startswith("poison"):
            fields = dict(glance(record.value, CONTRACTS[ORDERS].schema).fields)
            assert record.key == str(fields["order_id"]).encode()
            assert "." in str(fields["customer_id"])
