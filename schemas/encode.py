"""Events to bytes: the wire format, written. For sample traffic and for events from a file.

Stands apart from decoding, which `ingest` does strictly; this side trusts its caller's content and
only turns what a JSON file can say into what Avro takes.
"""

import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from io import BytesIO
from typing import Any

import fastavro

from schemas.contracts import Contract

MAGIC = 0
HEADER = struct.Struct(">bI")
"""The frame of the Confluent wire format: magic byte, then the schema's id."""


class EncodeError(Exception):
    """A content does not fit its contract. The message says which field, where that is known."""


class Encoder:
    """Writes events of one contract, framed with the id that the registry gave it."""

    def __init__(self, contract: Contract, schema_id: int) -> None:
        self._name = contract.name
        self._schema = fastavro.parse_schema(contract.schema)
        self._fields = {field["name"]: field["type"] for field in contract.schema["fields"]}
        self._header = HEADER.pack(MAGIC, schema_id)

    def encode(self, content: Mapping[str, Any]) -> bytes:
        """Encode one event. EncodeError: a field is missing, unknown or of another type."""
        unknown = sorted(set(content) - set(self._fields))
        if unknown:
            raise EncodeError(f"{self._name} has no field {', '.join(unknown)}")
        body = BytesIO(self._header)
        body.seek(len(self._header))
        try:
            fastavro.schemaless_writer(body, self._schema, dict(content), strict_allow_default=True)
        except (ValueError, TypeError, OverflowError, AttributeError, KeyError) as error:
            raise EncodeError(f"does not fit {self._name}: {error}") from error
        return body.getvalue()

    def from_json(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The content of a JSON object: amounts from text or numbers, times from ISO 8601.

        EncodeError: an amount is not a number, a time has no offset from UTC or is none.
        """
        return {
            name: _revive(self._fields[name], value, name) if name in self._fields else value
            for name, value in content.items()
        }


def _revive(kind: Any, value: Any, at: str) -> Any:
    """One JSON value as its type wants it; what needs nothing goes through, for Avro to judge."""
    if isinstance(kind, list):
        return value if value is None else _revive(_other(kind), value, at)
    if not isinstance(kind, dict):
        return value
    if kind.get("logicalType") == "decimal":
        return _amount(value, at)
    if str(kind.get("logicalType", "")).startswith("timestamp"):
        return _time(value, at)
    if kind.get("type") == "array" and isinstance(value, list):
        return [_revive(kind["items"], item, f"{at}[{n}]") for n, item in enumerate(value)]
    if kind.get("type") == "record" and isinstance(value, dict):
        types = {field["name"]: field["type"] for field in kind["fields"]}
        return {n: _revive(types.get(n), v, f"{at}.{n}") for n, v in value.items()}
    return value


def _other(union: list[Any]) -> Any:
    """The type of an optional field."""
    return next((kind for kind in union if kind != "null"), "null")


def _amount(value: Any, at: str) -> Decimal:
    if isinstance(value, bool | float):
        raise EncodeError(f'{at}: write amounts as text, like "12.50"; {value!r} is not exact')
    try:
        return Decimal(value)
    except (InvalidOperation, TypeError, ValueError) as error:
        raise EncodeError(f"{at}: {value!r} is not an amount") from error


def _time(value: Any, at: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise EncodeError(f"{at}: {value!r} is not a time like 2026-01-31T12:00:00Z") from error
    if moment.tzinfo is None:
        raise EncodeError(f"{at}: {value!r} has no offset from UTC; end it with Z")
    return moment.astimezone(UTC)
