"""Putting contracts into force at a registry: what `viewkeeper schemas register` does.

Stands apart from the client because it holds the rule: every subject is FULL by its own setting,
set before its schema is sent and read back afterwards.
"""

import json
from dataclasses import dataclass

from schemas.avro import changed_meanings
from schemas.contracts import Contract, ContractError, subject_of
from schemas.registry import (
    IncompatibleSchemaError,
    Registry,
    SubjectVersion,
    UnknownSubjectError,
    Verdict,
)

LEVEL = "FULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """A contract as it stands at the registry."""

    subject: str
    contract: str
    version: int
    schema_id: int
    compatibility: str
    new: bool


def register(registry: Registry, *, topic: str, contract: Contract) -> InForce:
    """Register a topic's contract, idempotently. Errors are the client's.

    ContractError: it changes what the registry does not see.
    """
    subject = subject_of(topic)
    registry.set_compatibility(subject, LEVEL)
    known = registry.find(subject, contract.text)
    changed = _changed(known or _latest(registry, subject), contract)
    if changed:
        raise ContractError(f"{contract.name} may not follow {subject}: {'; '.join(changed)}")
    place = registry.register(subject, contract.text)
    return InForce(
        subject=subject,
        contract=contract.name,
        version=place.version,
        schema_id=place.schema_id,
        compatibility=registry.compatibility(subject),
        new=known is None,
    )


def check(registry: Registry, *, topic: str, contract: Contract) -> Verdict:
    """Whether a topic's contract may be registered, without registering it.

    The registry compares structures. What the same structure means is compared here.
    """
    subject = subject_of(topic)
    known = registry.find(subject, contract.text)
    changed = _changed(known or _latest(registry, subject), contract)
    if known is not None:
        return Verdict(not changed, changed)
    try:
        verdict = registry.check(subject, contract.text)
    except IncompatibleSchemaError as error:
        verdict = Verdict(compatible=False, messages=(str(error),))
    return Verdict(verdict.compatible and not changed, (*verdict.messages, *changed))


def _latest(registry: Registry, subject: str) -> SubjectVersion | None:
    try:
        return registry.latest(subject)
    except UnknownSubjectError:
        return None


def _changed(registered: SubjectVersion | None, contract: Contract) -> tuple[str, ...]:
    """What the contract changes of a registered version, though it must not.

    Also of one that the registry takes for the same: it may pass over defaults.
    """
    if registered is None:
        return ()
    before = json.loads(registered.text)
    changed = changed_meanings(before, contract.schema)
    keys = before.get("key"), contract.schema.get("key")
    if None not in keys and keys[0] != keys[1]:
        changed.append(f"keyed by {keys[0]}, and would be by {keys[1]}: that is another topic")
    return tuple(changed)
