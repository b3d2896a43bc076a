"""What the unit tests of ingest share: the decoder on fakes, and good records to spoil."""

import random
import threading
from collections.abc import Mapping, Sequence

from ingest.decode import Decoder
from ingest.records import Dead, Event, Item, Record
from schemas import contracts
from schemas.registry import RegisteredSchema, RegistryUnavailableError, UnknownSchemaError
from tests.fixtures.content import Writer, order_content, payment_content
from tests.fixtures.contracts import SchemaIds, local_ids
from views import CATALOGUE

IDS, ANSWERS = local_ids()
WRITE = Writer(IDS)
CONTRACTS = {s.contract: contracts.load(s.contract).schema for s in CATALOGUE.streams}


class FakeRegistry:
    """Answers like a registry, and counts; `away` makes it one that can't be reached."""

    def __init__(self, answers: Mapping[int, tuple[str, str]] | None = None) -> None:
        self.answers = dict(ANSWERS if answers is None else answers)
        self.away = False
        self.asked: list[int] = []

    def schema_by_id(self, schema_id: int) -> RegisteredSchema:
        self.asked.append(schema_id)
        if self.away:
            raise RegistryUnavailableError("connection refused")
        if schema_id not in self.answers:
            raise UnknownSchemaError(f"no schema {schema_id}")
        return RegisteredSchema(*self.answers[schema_id])


class FakePins:
    """Keeps fingerprints as the database does."""

    def __init__(self) -> None:
        self.kept: dict[int, str] = {}

    def pin(self, schema_id: int, fingerprint: str) -> str:
        return self.kept.setdefault(schema_id, fingerprint)


class Made:
    """A decoder with everything around it in the test's hand."""

    def __init__(self, registry: FakeRegistry | None = None, pins: FakePins | None = None) -> None:
        self.registry = registry or FakeRegistry()
        self.pins = pins or FakePins()
        self.unlisted: list[str] = []
        self.stop = threading.Event()
        self.decoder = Decoder(
            CATALOGUE.stream_views,
            CONTRACTS,
            registry=self.registry,
            fingerprints=self.pins,
            stop=self.stop,
            on_unlisted=self.unlisted.append,
        )

    def decode(self, records: Sequence[Record]) -> list[Item]:
        return self.decoder.decode(records)


def record(
    value: bytes | None,
    *,
    key: bytes | None = b"o-1",
    topic: str = "orders",
    offset: int = 0,
    partition: int = 0,
) -> Record:
    return Record(topic, partition, offset, key, value, (), 1_735_689_600_000, 0)


def order(seed: int, schema: str = "orders", **changes: object) -> Record:
    """A good order event, written with a schema of `SchemaIds`."""
    content = order_content(random.Random(seed), f"o-{seed}", customers=5) | changes
    return record(WRITE(schema, content), key=f"o-{seed}".encode())


def payment(seed: int, schema: str = "payments", **changes: object) -> Record:
    """A good payment event."""
    rng = random.Random(seed)
    of = order_content(rng, f"o-{seed}", customers=5)
    content = payment_content(rng, of, 0) | changes
    return record(WRITE(schema, content), key=f"o-{seed}".encode(), topic="payments")


def body(of: Record) -> bytes:
    """The Avro bytes of a record, without their header."""
    assert of.value is not None
    return of.value[5:]


def said(item: Item) -> tuple[object, ...]:
    """What an item says, whatever was read beside it."""
    if isinstance(item, Dead):
        return "dead", item.fault, item.schema_id, item.attempts
    if isinstance(item, Event):
        return item.key, item.version, item.schema_id, item.row
    return tuple(item[1:])


__all__ = [
    "ANSWERS",
    "CONTRACTS",
    "IDS",
    "WRITE",
    "FakePins",
    "FakeRegistry",
    "Made",
    "SchemaIds",
    "body",
    "order",
    "payment",
    "record",
    "said",
]
