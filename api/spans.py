"""Spans of what the API does, told to a tracer where there is one. Without one they cost nothing.

Stands apart from `otel.py`, the only user of OpenTelemetry, so that nothing else depends on the
extra. One tracer a process, as OpenTelemetry has it. Attributes hold names, shapes and hashes; no
value of a variable or of a literal gets in.
"""

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Final, Protocol

from starlette.types import Scope

Value = str | int | float | bool


class Span(Protocol):
    """One thing that takes time."""

    @property
    def trace_id(self) -> str | None:
        """As W3C writes it; None: nobody traces."""

    def tell(self, **attributes: Value) -> None:
        """What became known of it; `__` in a name stands for a dot."""


class Tracing(Protocol):
    """Where spans go."""

    def serving(self, route: str, scope: Scope) -> AbstractContextManager[Span]:
        """The span of a request or of a connection; it continues the caller's trace."""

    def span(self, name: str) -> AbstractContextManager[Span]:
        """A span inside the one that is open now."""

    def stop(self) -> None:
        """Send what is left, for a moment."""


class _Nothing:
    """No span."""

    trace_id: None = None

    def tell(self, **_: Value) -> None:
        pass


_NOTHING: Final[AbstractContextManager[Span]] = nullcontext(_Nothing())
_tracing: Tracing | None = None


def exported() -> Tracing:
    """Where OpenTelemetry's variables say. ImportError: it is not installed."""
    # By name, and only now: it need not be there where nobody asks for it.
    tracing: Tracing = import_module("api.otel").exporting()
    return tracing


def switch_on(tracing: Tracing) -> None:
    """Spans go there from now on."""
    global _tracing
    _tracing = tracing


def switch_off() -> None:
    """No spans from now on; what is left is sent."""
    global _tracing
    before, _tracing = _tracing, None
    if before is not None:
        before.stop()


def serving(route: str, scope: Scope) -> AbstractContextManager[Span]:
    """Around a request."""
    return _NOTHING if _tracing is None else _tracing.serving(route, scope)


def span(name: str) -> AbstractContextManager[Span]:
    """Around something that takes time."""
    return _NOTHING if _tracing is None else _tracing.span(name)
