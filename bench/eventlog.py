"""The log that every contestant reads: seeded, valid orders and payments, two to one.

Stands apart from the sample traffic of the demo: here every event is good, so that contestants
which cannot stand a bad one run too, and the figures to check a result against are counted along.
"""

import io
import json
import random
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import fastavro
from confluent_kafka import KafkaError, Message, Producer

SCHEMAS: Final = Path(__file__).parents[1] / "schemas"
TOPICS: Final = ("orders", "payments")
START_MICROS: Final = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
DAY_MICROS: Final = 86_400_000_000
FLUSH_TIMEOUT_S: Final = 120.0
_CURRENCIES: Final = ("EUR", "USD", "GBP")
_METHODS: Final = ("card", "transfer", "voucher")
_ORDER_WALK: Final = ("PLACED", "CONFIRMED", "SHIPPED", "DELIVERED", "DELIVERED", "DELIVERED")
_PAYMENT_WALK: Final = ("AUTHORIZED", "CAPTURED", "REFUNDED")

Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """An event before it is encoded: amounts are bytes and times are microseconds."""

    topic: str
    key: str
    content: Content


@dataclass(slots=True)
class Expected:
    """What must be in the tables when every event is in: latest version by key, per topic."""

    events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOPICS, 0))
    versions: dict[str, dict[str, int]] = field(default_factory=lambda: {t: {} for t in TOPICS})

    def add(self, event: Event) -> None:
        """Count one event; within a key, versions only rise."""
        key = event.content.get("payment_id", event.key)
        self.events[event.topic] += 1
        self.versions[event.topic][key] = event.content["version"]

    def totals(self, topic: str) -> tuple[int, int]:
        """Rows and the sum of their versions in a table that keeps the latest event per key."""
        latest = self.versions[topic]
        return len(latest), sum(latest.values())


@dataclass(frozen=True, slots=True)
class LastRecord:
    """The last record of a partition: when it is in a table, so is everything before it."""

    topic: str
    key: str
    payment_id: str | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A log that was produced: how much, where it ends, and what must come of it."""

    events: int
    size_mb: float
    next_offsets: Mapping[tuple[str, int], int]
    last_records: tuple[LastRecord, ...]
    expected: Expected


class Shop:
    """Orders that go their way, some hundreds at once, each with its payments.

    The same seed gives the same events. `prefix` sets the ids of one shop apart from another's.
    """

    def __init__(self, *, seed: int, prefix: str = "o", woven: int = 500) -> None:
        self._random = random.Random(seed)
        self._prefix = prefix
        self._made = 0
        self._now_micros = START_MICROS
        self._open = [self._order() for _ in range(woven)]

    def events(self, count: int) -> Iterator[Event]:
        """So many events: two of orders, one of a payment, and again."""
        for number in range(count):
            self._now_micros += self._random.randrange(40_000_000)
            slot = self._random.randrange(len(self._open))
            yield self._payment(slot) if number % 3 == 2 else self._next_version(slot)

    def _order(self) -> Content:
        rng = self._random
        self._made += 1
        items = [self._item() for _ in range(rng.randrange(1, 5))]
        amount = sum(item["quantity"] * item["price"] for item in items)
        return {
            "order_id": f"{self._prefix}-{self._made:08d}",
            "customer_id": f"customer-{rng.randrange(5000):05d}",
            "currency": rng.choice(_CURRENCIES),
            "amount": amount,
            "discount": amount // 10 if rng.random() < 0.3 else None,
            "items": items,
            "placed_at": self._now_micros,
            "version": 0,
            "versions": rng.randrange(2, 8),
            "payments": 0,
            "payment_version": 0,
        }

    def _item(self) -> Content:
        rng = self._random
        return {
            "sku": f"sku-{rng.randrange(2000):04d}",
            "quantity": rng.randrange(1, 6),
            "price": rng.randrange(10_000, 2_000_000),
        }

    def _next_version(self, slot: int) -> Event:
        order = self._open[slot]
        if order["version"] == order["versions"]:
            order = self._open[slot] = self._order()
        order["version"] += 1
        last = order["version"] == order["versions"]
        cancelled = last and self._random.random() < 0.1
        content = {
            "event_id": self._event_id(),
            "order_id": order["order_id"],
            "version": order["version"],
            "status": "CANCELLED" if cancelled else _ORDER_WALK[min(order["version"], 6) - 1],
            "customer_id": order["customer_id"],
            "currency": order["currency"],
            "amount": money(order["amount"]),
            "discount": None if order["discount"] is None else money(order["discount"]),
            "items": [
                {"sku": i["sku"], "quantity": i["quantity"], "unit_price": money(i["price"])}
                for i in order["items"]
            ],
            "placed_at": order["placed_at"],
            "occurred_at": self._now_micros,
        }
        return Event("orders", order["order_id"], content)

    def _payment(self, slot: int) -> Event:
        order = self._open[slot]
        if order["payments"] == 0 or order["payment_version"] == len(_PAYMENT_WALK):
            order["payments"] += 1
            order["payment_version"] = 0
        order["payment_version"] += 1
        refunded = order["payment_version"] == len(_PAYMENT_WALK)
        content = {
            "event_id": self._event_id(),
            "payment_id": f"{order['order_id']}-p{order['payments']}",
            "order_id": order["order_id"],
            "version": order["payment_version"],
            "status": _PAYMENT_WALK[order["payment_version"] - 1],
            "currency": order["currency"],
            "amount": money(order["amount"] // 2),
            "refunded_amount": money(order["amount"] // 20 if refunded else 0),
            "method": self._random.choice(_METHODS),
            "occurred_at": self._now_micros,
        }
        return Event("payments", order["order_id"], content)

    def _event_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


def money(scaled: int) -> bytes:
    """An amount in ten-thousandths as the bytes of an Avro decimal: two's complement, shortest."""
    return scaled.to_bytes(scaled.bit_length() // 8 + 1, "big", signed=True)


class Encoder:
    """Events to the wire format. Amounts and times come as Avro stores them."""

    def __init__(self, schema_ids: Mapping[str, int]) -> None:
        self._headers = {t: b"\x00" + schema_ids[t].to_bytes(4, "big") for t in TOPICS}
        self._schemas = {t: fastavro.parse_schema(_bare(contract(t))) for t in TOPICS}

    def __call__(self, event: Event) -> bytes:
        out = io.BytesIO()
        out.write(self._headers[event.topic])
        fastavro.schemaless_writer(out, self._schemas[event.topic], event.content)
        return out.getvalue()

    def decode(self, topic: str, value: bytes) -> Content:
        """The content of a record that this encoder wrote."""
        decoded: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), self._schemas[topic], None)
        content: Content = decoded
        return content


def contract(topic: str) -> Content:
    """The committed contract of a topic."""
    schema: Content = json.loads((SCHEMAS / f"{topic}.avsc").read_text("utf-8"))
    return schema


def _bare(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_bare(inner) for inner in schema]
    if isinstance(schema, dict):
        return {name: _bare(inner) for name, inner in schema.items() if name != "logicalType"}
    return schema


class Delivery:
    """A producer that keeps the end of every partition and raises what the broker refused."""

    def __init__(self, bootstrap_servers: str, encoder: Encoder, *, linger_ms: int = 20) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": linger_ms,
                "log_level": 3,
                "queue.buffering.max.messages": 200_000,
            }
        )
        self._encoder = encoder
        self._failures: list[str] = []
        self._last: dict[tuple[str, int], tuple[int, bytes]] = {}
        self.size_bytes = 0

    def send(self, event: Event) -> None:
        """Hand an event to the producer; waits while its queue is full."""
        self.send_bytes(event.topic, event.key, self._encoder(event))

    def send_bytes(self, topic: str, key: str | bytes | None, value: bytes | None) -> None:
        """The same for a record that is no event."""
        self.size_bytes += len(value or b"")
        while True:
            try:
                self._producer.produce(topic, key=key, value=value, on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def finish(self) -> dict[tuple[str, int], int]:
        """Wait until all is acknowledged; the next offset of every partition written to."""
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        if left or self._failures:
            raise RuntimeError(f"{left} records were not acknowledged; {self._failures[:3]}")
        return {partition: offset + 1 for partition, (offset, _) in self._last.items()}

    def last_records(self) -> tuple[LastRecord, ...]:
        """The last record of every partition written to."""
        found = []
        for (topic, _), (_, value) in sorted(self._last.items()):
            content = self._encoder.decode(topic, value)
            key, payment_id = content["order_id"], content.get("payment_id")
            found.append(LastRecord(topic, key, payment_id, content["version"]))
        return tuple(found)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        value = message.value()
        if error is not None or topic is None or partition is None:
            self._failures.append(str(error))
            return
        last_offset = self._last.get((topic, partition), (-1, b""))[0]
        if offset is not None and value is not None and offset > last_offset:
            self._last[topic, partition] = (offset, value)


def produce(
    bootstrap_servers: str, schema_ids: Mapping[str, int], *, events: int, seed: int
) -> EventLog:
    """Write the log of a benchmark; the topics must exist."""
    delivery = Delivery(bootstrap_servers, Encoder(schema_ids))
    expected = Expected()
    for event in Shop(seed=seed).events(events):
        expected.add(event)
        delivery.send(event)
    return EventLog(
        events=events,
        next_offsets=delivery.finish(),
        size_mb=delivery.size_bytes / 1e6,
        last_records=delivery.last_records(),
        expected=expected,
    )
