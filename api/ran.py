"""What is known of one run of an operation: filled in while it runs, read when it is over.

Stands apart because the executor fills it in, and figures, logs and spans read it. What they get of
it are names, shapes and hashes: no value of a variable or of a literal.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from api.documents import Operation
from api.route import Compiled

Statement = Callable[[str], tuple[str, Sequence[Any]]]


@dataclass(slots=True, kw_only=True)
class Ran:
    """One run. Of an operation that was refused, what was found out until then.

    `worked_s` is `seconds` without the wait for events that were asked for.
    """

    document: str
    role: str
    request_id: str
    name: str = ""
    kind: str = ""
    cost: int = 0
    seconds: float = 0.0
    worked_s: float = 0.0
    compiled: Compiled | None = None
    statement: str = ""

    def is_of(self, operation: Operation, cost: int) -> None:
        """The operation is known, and valid."""
        self.name, self.cost = operation.name or "", cost
        self.kind = operation.definition.operation.value

    def goes(self, compiled: Compiled) -> Statement:
        """It goes the compiled way: the statement to run, whose text is noted."""
        self.compiled = compiled

        def noted(build: str) -> tuple[str, Sequence[Any]]:
            self.statement, values = compiled.statement(build)
            return self.statement, values

        return noted

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around each attempt at the answer."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.worked_s += time.perf_counter() - began

    @property
    def document_hash(self) -> str:
        """SHA-256 of the document: what persisted documents go by."""
        return hashlib.sha256(self.document.encode(errors="replace")).hexdigest()

    @property
    def statement_hash(self) -> str:
        """Alike for runs that PostgreSQL plans alike; empty where nothing was compiled."""
        return hashlib.sha256(self.statement.encode()).hexdigest()[:16] if self.statement else ""
