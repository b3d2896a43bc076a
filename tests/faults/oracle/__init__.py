"""The oracle: another program that says what the views must hold for a given log.

It shares nothing with the product but the contract in `schemas/*.avsc`: its own Avro walk, plain
integers in minor units, one pass in offset order. `log.py` reads Kafka and the registry, `fold.py`
and `rows.py` are pure, `compare.py` reads PostgreSQL, `__main__.py` is the command.
"""

from tests.faults.oracle.compare import check_invariants, compare
from tests.faults.oracle.events import Contract, Record, WriterSchema
from tests.faults.oracle.fold import DeadLetter, Expected, Recorded, expect
from tests.faults.oracle.log import Registry, high_watermarks, read_log

__all__ = [
    "Contract",
    "DeadLetter",
    "Expected",
    "Record",
    "Recorded",
    "Registry",
    "WriterSchema",
    "check_invariants",
    "compare",
    "expect",
    "high_watermarks",
    "read_log",
]
