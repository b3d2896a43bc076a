"""A sample of what the walk read, read again by the `avro` package: the oracle's own witness.

Two decoders that agree are worth more than one; the package is too slow to read everything.
"""

from __future__ import annotations

import datetime
import io
import struct
import warnings
from decimal import Decimal
from typing import Any

import avro.errors
import avro.io
import avro.schema

from tests.faults.oracle.walk import BrokenError, Walk

_EVERY = 97
_PACKAGE_ERRORS = (
    avro.errors.AvroException,
    ArithmeticError,
    ValueError,
    LookupError,
    TypeError,
    struct.error,
)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class DisagreementError(Exception):
    """The walk and the `avro` package read one body differently: the oracle cannot be trusted.

    Look at the bytes in the message, and mend `walk.py` before believing any comparison.
    """


class CrossCheck:
    """Counts what it saw, and reads every 97th body of each schema again, the first one too."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self.checked = 0

    def accepted(self, schema_id: int, writer: Any, value: bytes) -> None:
        seen = self._seen.get(schema_id, 0)
        self._seen[schema_id] = seen + 1
        if seen % _EVERY:
            return
        mine, _ = Walk().compile(writer, writer)(value, 5)
        try:
            theirs, left = _package(writer, value)
        except struct.error:
            return  # A decimal of no bytes is zero; the package cannot read it at all.
        self.checked += 1
        if left or _raw(theirs) != mine:
            raise DisagreementError(f"{value.hex()}: the walk read {mine}, the package {theirs}")

    def refused(self, broken: BrokenError, writer: Any, value: bytes) -> None:
        """A body that ended early for the walk must end early for the package as well."""
        if broken.reason != "TRUNCATED":
            return
        self.checked += 1
        try:
            theirs, _ = _package(writer, value)
        except _PACKAGE_ERRORS:
            return
        raise DisagreementError(f"{value.hex()}: truncated for the walk, the package read {theirs}")


def _package(writer: Any, value: bytes) -> tuple[Any, bytes]:
    body = io.BytesIO(value[5:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datum = avro.io.DatumReader(writer, writer).read(avro.io.BinaryDecoder(body))
    return datum, body.read()


def _raw(value: Any) -> Any:
    """The package's decimals and times as the walk keeps them; every decimal has scale 4."""
    if isinstance(value, dict):
        return {name: _raw(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_raw(inner) for inner in value]
    if isinstance(value, Decimal):
        sign, digits, _ = value.as_tuple()
        unscaled = int("".join(map(str, digits)))
        return -unscaled if sign else unscaled
    if isinstance(value, datetime.datetime):
        return (value - _EPOCH) // datetime.timedelta(microseconds=1)
    return value
