"""One record of the log becomes an event, a tombstone or a reason why it can be neither.

Pure, but for the registry that the caller hands in; every rule about a record alone is here, and
every rule about records together is in `fold.py`.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import avro.errors
import avro.schema

from tests.faults.oracle.crosscheck import CrossCheck
from tests.faults.oracle.walk import BrokenError, Read, Walk

CONTRACTS = Path(__file__).parents[3] / "schemas"
MAX_KEY_CHARS = 1024
_LIMIT_UNSCALED = 10**18
_FIRST_MICROS = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
_LAST_MICROS = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
_CURRENCY = re.compile(r"[A-Z]{3}")
_TEXTS = ("event_id", "order_id", "payment_id", "customer_id", "currency", "method")
_IDS = ("order_id", "payment_id", "customer_id")
_MONEY = ("amount", "discount", "refunded_amount")
_TIMES = ("placed_at", "occurred_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A committed record as it lies in the log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """What the registry answers for an id; `kind` is AVRO, JSON or PROTOBUF."""

    text: str
    kind: str = "AVRO"


# The answer for an id, or None where the registry knows no such id (404).
FindSchema = Callable[[int], WriterSchema | None]


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A null value on the orders topic, with a key that can name an order."""

    key: str
    record: Record


@dataclass(frozen=True, slots=True)
class Event:
    """A decoded event: `content` is what two events of one version are compared by."""

    key: tuple[str, ...]
    version: int
    schema_id: int
    content: Mapping[str, Any]
    record: Record


@dataclass(frozen=True, slots=True)
class Contract:
    """What the two topics are called, and our schema of each."""

    orders_topic: str = "orders"
    payments_topic: str = "payments"
    orders_schema: str = field(default_factory=lambda: _contract("orders"))
    payments_schema: str = field(default_factory=lambda: _contract("payments"))


def _contract(name: str) -> str:
    return (CONTRACTS / f"{name}.avsc").read_text("utf-8")


class Decoder:
    """Records to events; remembers every schema it compiled."""

    def __init__(self, find_schema: FindSchema, contract: Contract) -> None:
        self._find = find_schema
        self._contract = contract
        self._readers = {
            contract.orders_topic: avro.schema.parse(contract.orders_schema),
            contract.payments_topic: avro.schema.parse(contract.payments_schema),
        }
        self._answers: dict[int, Any | BrokenError] = {}
        self._walks: dict[tuple[str, int], Read | BrokenError] = {}
        self.crosscheck = CrossCheck()

    def decode(self, record: Record) -> Event | Tombstone:
        """Raises BrokenError with the reason of the dead letter that the record deserves."""
        key = _key(record.key)
        if record.value is None:
            if record.topic == self._contract.orders_topic:
                return Tombstone(key, record)
            raise BrokenError("NULL_VALUE", "a null value names no payment")
        schema_id, content = self._content(record.topic, record.value)
        _check(key, content)
        self.crosscheck.accepted(schema_id, self._answers[schema_id], record.value)
        identity: tuple[str, ...] = (key,)
        if record.topic == self._contract.payments_topic:
            identity = (key, content["payment_id"])
        return Event(identity, content["version"], schema_id, content, record)

    def _content(self, topic: str, value: bytes) -> tuple[int, dict[str, Any]]:
        schema_id = _schema_id(value)
        walk = self._walk(topic, schema_id)
        writer = self._answers[schema_id]
        try:
            content, end = walk(value, 5)
        except RecursionError as error:
            raise BrokenError("MALFORMED", "nested too deep to be read") from error
        except BrokenError as error:
            self.crosscheck.refused(error, writer, value)
            raise
        if end != len(value):
            raise BrokenError("TRAILING_BYTES", f"{len(value) - end} bytes behind the event")
        return schema_id, content

    def _walk(self, topic: str, schema_id: int) -> Read:
        known = self._walks.get((topic, schema_id))
        if known is None:
            known = self._compile(topic, schema_id)
            self._walks[topic, schema_id] = known
        if isinstance(known, BrokenError):
            raise BrokenError(known.reason, str(known))
        return known

    def _compile(self, topic: str, schema_id: int) -> Read | BrokenError:
        if schema_id not in self._answers:
            self._answers[schema_id] = _parse(self._find(schema_id), schema_id)
        writer = self._answers[schema_id]
        if isinstance(writer, BrokenError):
            return writer
        try:
            return Walk().compile(writer, self._readers[topic])
        except BrokenError as error:
            return error


def _parse(answer: WriterSchema | None, schema_id: int) -> Any | BrokenError:
    if answer is None:
        return BrokenError("UNKNOWN_SCHEMA", f"the registry has no schema {schema_id}")
    if answer.kind != "AVRO":
        return BrokenError("INCOMPATIBLE_SCHEMA", f"schema {schema_id} is {answer.kind}, not Avro")
    try:
        with warnings.catch_warnings():
            # A logical type that the package ignores is compared by its name in the walk.
            warnings.simplefilter("ignore", avro.errors.AvroWarning)
            return avro.schema.parse(answer.text)
    except (avro.errors.AvroException, json.JSONDecodeError) as error:
        return BrokenError("INCOMPATIBLE_SCHEMA", f"schema {schema_id} is no Avro: {error}")


def _key(key: bytes | None) -> str:
    if key is None:
        raise BrokenError("NULL_KEY", "the record has no key")
    try:
        text = key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BrokenError("KEY_NOT_UTF8", "the key is not UTF-8") from error
    if "\x00" in text:
        raise BrokenError("NUL_IN_TEXT", "the key holds a NUL")
    if len(text) > MAX_KEY_CHARS:
        raise BrokenError("KEY_TOO_LONG", f"the key has {len(text)} characters")
    return text


def _schema_id(value: bytes) -> int:
    """Confluent wire format: a zero byte, the schema id in four bytes, the body."""
    if not value:
        raise BrokenError("EMPTY", "a value of no bytes")
    if value[0] != 0:
        raise BrokenError("BAD_MAGIC", f"the first byte is {value[0]}")
    if len(value) < 5:
        raise BrokenError("TRUNCATED", f"a header of {len(value)} bytes")
    return int.from_bytes(value[1:5], "big")


def _check(key: str, content: Mapping[str, Any]) -> None:
    """In this order, so that a record wrong in two ways has one reason."""
    if content["order_id"] != key:
        raise BrokenError("KEY_MISMATCH", f"the event is of order {content['order_id']!r:.80}")
    if content["version"] < 1:
        raise BrokenError("BAD_VERSION", f"version {content['version']}")
    if not _CURRENCY.fullmatch(content["currency"]):
        raise BrokenError("BAD_CURRENCY", f"currency {content['currency']!r:.80}")
    items = content.get("items", ())
    texts = [*(content.get(name, "") for name in _TEXTS), *(item["sku"] for item in items)]
    if any("\x00" in text for text in texts):
        raise BrokenError("NUL_IN_TEXT", "a text holds a NUL")
    if any(len(content.get(name, "")) > MAX_KEY_CHARS for name in _IDS):
        raise BrokenError("KEY_TOO_LONG", f"an id has more than {MAX_KEY_CHARS} characters")
    money = [*(content.get(name) or 0 for name in _MONEY), *(item["unit_price"] for item in items)]
    if any(abs(unscaled) >= _LIMIT_UNSCALED for unscaled in money):
        raise BrokenError("DECIMAL_OVERFLOW", "an amount has more than 18 digits")
    times = [content[name] for name in _TIMES if name in content]
    if any(not _FIRST_MICROS <= micros <= _LAST_MICROS for micros in times):
        raise BrokenError("BAD_TIMESTAMP", "a time outside the years 1 to 9999")
