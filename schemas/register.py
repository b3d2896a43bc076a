"""Putting contracts into force at a registry: what `viewkeeper schemas register` does.

Stands apart from the client because it holds the rule: every subject is FULL by its own setting,
set before its schema is sent and read back afterwards.
"""

from dataclasses import dataclass

from schemas.contracts import Contract, subject_of
from schemas.registry import IncompatibleSchemaError, Registry, Verdict

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
    """Register a topic's contract, idempotently. Errors are the client's."""
    subject = subject_of(topic)
    registry.set_compatibility(subject, LEVEL)
    known = registry.find(subject, contract.text)
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
    """Whether a topic's contract may be registered, without registering it."""
    subject = subject_of(topic)
    if registry.find(subject, contract.text) is not None:
        return Verdict(compatible=True)
    try:
        return registry.check(subject, contract.text)
    except IncompatibleSchemaError as error:
        return Verdict(compatible=False, messages=(str(error),))
