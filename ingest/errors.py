"""The kinds of failure. The kind decides the move, and there are few kinds.

Transient: wait and try again. Dead: the record becomes a dead letter. Fenced: somebody newer owns
the partition. Refused: stop, with a sentence for the operator. Everything else is a bug and ends
the worker with its traceback.
"""

from dataclasses import dataclass
from enum import StrEnum

from views.positions import Partition


class Reason(StrEnum):
    """Why a record is a dead letter. The first that holds, in this order, is the one named."""

    NULL_KEY = "NULL_KEY"
    KEY_NOT_UTF8 = "KEY_NOT_UTF8"
    KEY_TOO_LONG = "KEY_TOO_LONG"
    NULL_VALUE = "NULL_VALUE"
    EMPTY = "EMPTY"
    BAD_MAGIC = "BAD_MAGIC"
    TRUNCATED = "TRUNCATED"
    TRAILING_BYTES = "TRAILING_BYTES"
    UNKNOWN_SCHEMA = "UNKNOWN_SCHEMA"
    INCOMPATIBLE_SCHEMA = "INCOMPATIBLE_SCHEMA"
    OVER_LIMIT = "OVER_LIMIT"
    MALFORMED = "MALFORMED"
    KEY_MISMATCH = "KEY_MISMATCH"
    BAD_VERSION = "BAD_VERSION"
    BAD_CURRENCY = "BAD_CURRENCY"
    NUL_IN_TEXT = "NUL_IN_TEXT"
    DECIMAL_OVERFLOW = "DECIMAL_OVERFLOW"
    BAD_TIMESTAMP = "BAD_TIMESTAMP"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    REFUSED_BY_DATABASE = "REFUSED_BY_DATABASE"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one record: the reason, a sentence, and the byte of the value if known."""

    reason: Reason
    detail: str
    at_byte: int | None = None

    def __str__(self) -> str:
        place = "" if self.at_byte is None else f" (at byte {self.at_byte} of the value)"
        return f"{self.detail}{place}"


class DeadRecordError(Exception):
    """One record can't be decoded or applied. It becomes a dead letter; its neighbours land."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class TransientError(Exception):
    """Broker, registry or database can't serve now. Wait and try again; no record is to blame."""


class FencedError(Exception):
    """A newer owner exists for a partition, or its position is not the one this worker left.

    Nothing of the batch was committed. Read which build is live, find out whether this worker is
    still a member of its group, and only then take the partition anew.
    """

    def __init__(self, partitions: tuple[Partition, ...]) -> None:
        named = ", ".join(f"{topic}:{partition}" for topic, partition in partitions)
        super().__init__(f"fenced: {named} has a newer owner or another position")
        self.partitions = partitions


class BatchRefusedError(Exception):
    """The database refuses what a batch holds (SQLSTATE class 22 or 23).

    The batch was rolled back. The worker halves it until the one record is alone.
    """


class RefusedError(Exception):
    """Going on would be wrong. The message names the cause and the remedy, for the operator."""
