"""The client and the registration on a real registry."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from schemas import register
from schemas.contracts import Contract, ContractError, load
from schemas.registry import (
    IncompatibleSchemaError,
    InvalidSchemaError,
    Registration,
    Registry,
    UnknownSchemaError,
    UnknownSubjectError,
)
from tests.fixtures.servers import Servers

CONTRACT = load("orders.avsc")
# Apicurio's look-up recognises a JSON Schema by this member alone.
OBJECT = '{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}'


@pytest.fixture
def client(servers: Servers) -> Iterator[Registry]:
    with Registry(servers.registry.url) as made:
        yield made


@pytest.fixture
def topic() -> str:
    """A topic that no other test has, with a character that an address must not hold as it is."""
    return f"t{secrets.token_hex(4)}/x"


def changed(**field: object) -> Contract:
    """The orders contract with one more field."""
    fields = [*CONTRACT.schema["fields"], {"name": "note", "doc": "A note.", **field}]
    return Contract(CONTRACT.name, CONTRACT.schema | {"fields": fields})


def test_registering_again_changes_nothing_and_the_level_is_read_back(
    client: Registry, topic: str
) -> None:
    first = register.register(client, topic=topic, contract=CONTRACT)
    again = register.register(client, topic=topic, contract=CONTRACT)
    assert (first.version, first.compatibility, first.new) == (1, "FULL", True)
    assert (again.version, again.schema_id, again.new) == (1, first.schema_id, False)
    assert client.versions(first.subject) == (1,)
    assert client.latest(first.subject).schema_id == first.schema_id
    assert json.loads(client.schema_by_id(first.schema_id).text) == CONTRACT.schema
    assert first.subject in client.subjects()


def test_an_optional_field_may_follow_and_a_required_one_may_not(
    client: Registry, topic: str
) -> None:
    register.register(client, topic=topic, contract=CONTRACT)
    required, optional = changed(type="string"), changed(type=["null", "string"], default=None)
    assert not register.check(client, topic=topic, contract=required).compatible
    with pytest.raises(IncompatibleSchemaError, match="note"):
        register.register(client, topic=topic, contract=required)
    assert register.check(client, topic=topic, contract=optional).compatible
    assert register.register(client, topic=topic, contract=optional).version == 2
    assert register.check(client, topic=topic, contract=CONTRACT).compatible


def _replaced(node: Any, old: Any, new: Any) -> Any:
    """The schema with every `old` in it replaced."""
    if node == old:
        return new
    if isinstance(node, dict):
        return {name: _replaced(value, old, new) for name, value in node.items()}
    return [_replaced(value, old, new) for value in node] if isinstance(node, list) else node


AMOUNT = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (AMOUNT, AMOUNT | {"scale": 2}, "amount: written as decimal(18,4), read as decimal(18,2)"),
        (
            AMOUNT,
            AMOUNT | {"precision": 9},
            "discount: written as decimal(18,4), read as decimal(9",
        ),
        (AMOUNT, "bytes", "unit_price: written as decimal(18,4), read as a plain value"),
        ("timestamp-micros", "timestamp-millis", "written as timestamp-micros, read as"),
        ("UNKNOWN", "PLACED", "enum with default UNKNOWN, read as enum with default PLACED"),
        ("order_id", "customer_id", "keyed by order_id, and would be by customer_id"),
    ],
)
def test_what_the_registry_does_not_see_is_refused_all_the_same(
    client: Registry, topic: str, old: Any, new: Any, told: str
) -> None:
    register.register(client, topic=topic, contract=CONTRACT)
    schema = CONTRACT.schema
    if old == "order_id":
        schema = schema | {"key": new}
    elif old == "UNKNOWN":
        schema = _replaced(schema, schema["fields"][3], _other_default(schema["fields"][3], new))
    else:
        schema = _replaced(schema, old, new)
    candidate = Contract(CONTRACT.name, schema)
    assert client.check(f"{topic}-value", candidate.text).compatible, "the registry sees it"
    verdict = register.check(client, topic=topic, contract=candidate)
    assert not verdict.compatible
    assert told in "; ".join(verdict.messages)
    with pytest.raises(ContractError, match="may not follow"):
        register.register(client, topic=topic, contract=candidate)
    assert client.versions(f"{topic}-value") == (1,)


def _other_default(field: dict[str, Any], default: str) -> dict[str, Any]:
    return field | {"type": field["type"] | {"default": default}}


def test_what_is_not_there_is_told_apart(client: Registry, topic: str) -> None:
    subject = f"{topic}-value"
    with pytest.raises(UnknownSchemaError):
        client.schema_by_id(2_000_000_000)
    with pytest.raises(UnknownSubjectError):
        client.latest(subject)
    with pytest.raises(UnknownSubjectError):
        client.versions(subject)
    assert client.find(subject, CONTRACT.text) is None
    assert client.check(subject, CONTRACT.text).compatible
    with pytest.raises(InvalidSchemaError):
        client.register(subject, '{"type": "recor')


def test_kinds_other_than_avro_are_named(client: Registry, topic: str) -> None:
    done = client.register(f"{topic}-value", OBJECT, kind="JSON")
    assert done == Registration(1, done.schema_id)
    assert client.schema_by_id(done.schema_id).kind == "JSON"
