"""The log of the benchmarks is what it says: seeded, two to one, valid, and counted right."""

from decimal import Decimal
from io import BytesIO

import fastavro
import pytest

from bench.eventlog import TOPICS, Encoder, Expected, Shop, contract, money


def test_the_same_seed_gives_the_same_events() -> None:
    assert list(Shop(seed=7).events(500)) == list(Shop(seed=7).events(500))
    assert list(Shop(seed=7).events(500)) != list(Shop(seed=8).events(500))


def test_two_events_of_orders_come_with_one_of_a_payment() -> None:
    topics = [event.topic for event in Shop(seed=1).events(3000)]
    assert topics.count("orders") == 2000
    assert topics.count("payments") == 1000


def test_versions_of_a_key_rise_one_by_one_and_the_expected_totals_follow() -> None:
    seen: dict[tuple[str, str], int] = {}
    expected = Expected()
    for event in Shop(seed=3, woven=20).events(3000):
        expected.add(event)
        key = (event.topic, event.content.get("payment_id", event.key))
        assert event.content["version"] == seen.get(key, 0) + 1
        assert event.content["order_id"] == event.key
        seen[key] = event.content["version"]
    for topic in TOPICS:
        versions = [version for (t, _), version in seen.items() if t == topic]
        assert expected.totals(topic) == (len(versions), sum(versions))


def test_every_event_is_readable_by_the_contract_with_its_logical_types() -> None:
    encode = Encoder({"orders": 5, "payments": 6})
    schemas = {topic: fastavro.parse_schema(contract(topic)) for topic in TOPICS}
    for event in Shop(seed=5).events(300):
        value = encode(event)
        assert value[:5] == b"\x00" + (5 if event.topic == "orders" else 6).to_bytes(4, "big")
        body = BytesIO(value[5:])
        read = fastavro.schemaless_reader(body, schemas[event.topic], None)
        assert isinstance(read, dict)
        assert body.read() == b""
        assert isinstance(read["amount"], Decimal)
        assert read["amount"] > 0
        assert encode.decode(event.topic, value)["version"] == event.content["version"]


@pytest.mark.parametrize("scaled", [0, 1, -1, 127, 128, -128, -129, 10**17])
def test_money_is_two_s_complement(scaled: int) -> None:
    stored = money(scaled)
    assert int.from_bytes(stored, "big", signed=True) == scaled
