"""Spans by OpenTelemetry. The only module that imports it, and imported only where it is wanted.

Needs the extra: `pip install 'viewkeeper[otel]'`. Where spans go, how many, and what the service is
called is told by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`, ...).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from api.spans import Value

_LAST_S: Final = 3.0
_CARRIED: Final = (b"traceparent", b"tracestate")
_W3C: Final = TraceContextTextMapPropagator()


class _Told:
    """One span of OpenTelemetry, as the rest of the API sees it."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.trace_id: str | None = trace.format_trace_id(span.get_span_context().trace_id)

    def tell(self, **attributes: Value) -> None:
        """Attributes, a dot for each `__`."""
        for name, value in attributes.items():
            self._span.set_attribute(name.replace("__", "."), value)


class OpenTelemetry:
    """Tells spans to a provider."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("viewkeeper", version("viewkeeper"))

    @contextmanager
    def serving(self, route: str, scope: Scope) -> Iterator[_Told]:
        """The span of a request or of a connection; it continues the caller's trace."""
        carried = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _CARRIED
        }
        method = scope.get("method", "GET")
        with self._open(f"{method} {route}", SpanKind.SERVER, _W3C.extract(carried)) as span:
            span.tell(http__request__method=method, http__route=route)
            yield span

    @contextmanager
    def span(self, name: str) -> Iterator[_Told]:
        """A span inside the one that is open now."""
        with self._open(name, SpanKind.INTERNAL) as span:
            yield span

    def stop(self) -> None:
        """Send what is left, for a moment."""
        # It would wait half a minute for a collector that is away.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_LAST_S)

    @contextmanager
    def _open(self, name: str, kind: SpanKind, context: Context | None = None) -> Iterator[_Told]:
        # The text of an error may hold values: its type is told, and nothing more.
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=kind,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield _Told(span)
            except Exception as error:
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", type(error).__name__)
                raise


def exporting() -> OpenTelemetry:
    """Spans that are sent by OTLP over HTTP, from a thread of their own."""
    ours = {SERVICE_NAME: "viewkeeper-api", SERVICE_VERSION: version("viewkeeper")}
    resource = Resource.create(ours).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetry(provider)
