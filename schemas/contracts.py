"""The contract files beside this module: loading them and checking what a registry does not.

A registry parses a schema and compares versions. The house rules of a contract are checked here:
names, docs, defaults of enums, one form of money and one of time, and never a float.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

FOLDER = Path(__file__).parent
PRECISION, SCALE = 18, 4
"""The form of every amount: a decimal of another scale is another number in the same bytes."""
TIME = "timestamp-micros"

_PRIMITIVES = {"null", "boolean", "int", "long", "bytes", "string"}


class ContractError(Exception):
    """A contract file is missing or not what a contract must be. The message lists every fault."""


@dataclass(frozen=True, slots=True)
class Contract:
    """One contract file: its name (`orders.avsc`) and its schema."""

    name: str
    schema: dict[str, Any]

    @property
    def text(self) -> str:
        """The schema as it is registered: the whole file, docs too, without its layout."""
        return json.dumps(self.schema, separators=(",", ":"))

    @property
    def full_name(self) -> str:
        """Namespace and name of the record."""
        return f"{self.schema.get('namespace', '')}.{self.schema.get('name', '')}"


def subject_of(topic: str) -> str:
    """The subject of a topic's values (TopicNameStrategy)."""
    return f"{topic}-value"


def load(name: str, *, folder: Path = FOLDER) -> Contract:
    """Read and check one contract file. ContractError: it is missing, not JSON, or at fault."""
    path = folder / name
    try:
        schema = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ContractError(f"{name}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ContractError(f"{name}: is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise ContractError(f"{name}: must be one record")
    faults = tuple(problems(schema))
    if faults:
        raise ContractError("\n".join(f"{name}: {fault}" for fault in faults))
    return Contract(name, schema)


def load_all(*, folder: Path = FOLDER) -> tuple[Contract, ...]:
    """Every contract file of the folder, by name. ContractError lists the faults of all of them."""
    contracts: list[Contract] = []
    faults: list[str] = []
    for path in sorted(folder.glob("*.avsc")):
        try:
            contracts.append(load(path.name, folder=folder))
        except ContractError as error:
            faults.append(str(error))
    if faults:
        raise ContractError("\n".join(faults))
    return tuple(contracts)


def problems(schema: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a contract's schema, one sentence per fault."""
    if schema.get("type") != "record":
        yield "must be one record"
        return
    if not schema.get("namespace"):
        yield "the record has no namespace"
    unreadable = _unreadable(schema)
    if unreadable is not None:
        yield unreadable
        return
    yield from _type(schema, str(schema["name"]))


def _unreadable(schema: dict[str, Any]) -> str | None:
    try:
        fastavro.parse_schema(schema)
    except (SchemaParseException, UnknownType, KeyError, TypeError, ValueError) as error:
        return f"is not an Avro schema: {type(error).__name__}: {error}"
    return None


def _type(kind: Any, at: str) -> Iterator[str]:
    """The faults of a type, wherever it stands in the schema."""
    if isinstance(kind, str):
        if kind in ("float", "double"):
            yield f"{at}: {kind} cannot hold money or be compared exactly; use a decimal"
        return
    if isinstance(kind, list):
        for branch in kind:
            yield from _type(branch, at)
        return
    match kind.get("type"):
        case "record":
            yield from _record(kind, at)
        case "enum":
            yield from _enum(kind, at)
        case "array":
            yield from _type(kind["items"], f"{at}[]")
        case "map":
            yield from _type(kind["values"], f"{at}{{}}")
        case "fixed":
            yield from _logical(kind, at)
        case inner if isinstance(inner, str) and inner in _PRIMITIVES:
            yield from _logical(kind, at)
        case inner:
            yield from _type(inner, at)


def _record(record: dict[str, Any], at: str) -> Iterator[str]:
    if not record.get("doc"):
        yield f"{at}: the record has no doc"
    for field in record["fields"]:
        here = f"{at}.{field['name']}"
        if not field.get("doc"):
            yield f"{here}: has no doc"
        yield from _type(field["type"], here)


def _enum(enum: dict[str, Any], at: str) -> Iterator[str]:
    """Without a default that is one of its symbols, a new symbol is unreadable to older readers."""
    if "default" not in enum:
        yield f"{at}: the enum has no default, so a new symbol would be unreadable"
    elif enum["default"] not in enum["symbols"]:
        yield f"{at}: the enum's default {enum['default']!r} is not one of its symbols"


def _logical(kind: dict[str, Any], at: str) -> Iterator[str]:
    logical = kind.get("logicalType")
    if logical == "decimal":
        form = (kind.get("precision"), kind.get("scale", 0))
        if form != (PRECISION, SCALE):
            yield f"{at}: decimal{form} must be decimal({PRECISION}, {SCALE}), like every amount"
    elif isinstance(logical, str) and "timestamp" in logical and logical != TIME:
        yield f"{at}: {logical} must be {TIME}, like every time"
