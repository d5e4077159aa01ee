"""Traces by OpenTelemetry; imported only where `ONETON_OTLP_ENDPOINT` is set."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from time import perf_counter, time_ns

import structlog
from opentelemetry import context as contexts
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from oneton.domain.stages import Stages
from oneton.domain.watching import Trace, Work

log = structlog.get_logger()

SEND_EVERY_MS = 1000
SEND_WITHIN_S = 5.0
PATH = "/v1/traces"
_KINDS = {"request": api.SpanKind.SERVER, "job": api.SpanKind.CONSUMER}


class Tracer:
    """Makes spans when the work they are of is over, and sends them behind its back.

    What cannot be sent is dropped: past 2,048 spans that wait, and while nobody takes them.

    Args:
        endpoint: a collector's address; `/v1/traces` is added, unless it ends so.
        role: `serve` or `worker`.
    """

    def __init__(self, endpoint: str, role: str, version: str) -> None:
        # Each failure would be several lines; `_SaysOnce` says one when it begins.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        base = endpoint.rstrip("/")
        url = base if base.endswith(PATH) else base + PATH
        self._exporter = _SaysOnce(OTLPSpanExporter(url, timeout=SEND_WITHIN_S), url)
        self._provider = TracerProvider(
            resource=Resource.create(
                {
                    "service.name": os.environ.get("OTEL_SERVICE_NAME", "oneton"),
                    "service.version": version,
                    "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
                    "oneton.role": role,
                }
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(self._exporter, schedule_delay_millis=SEND_EVERY_MS)
        )
        self._tracer = self._provider.get_tracer("oneton", version)
        self._propagator = TraceContextTextMapPropagator()

    def __call__(self, name: str, kind: Work, parent: Mapping[str, str]) -> Trace | None:
        """Begin to trace; None where the parent, or OTEL_TRACES_SAMPLER, says not to."""
        within = self._propagator.extract(parent, contexts.Context())
        span = self._tracer.start_span(name, context=within, kind=_KINDS[kind])
        return _Span(self._tracer, span) if span.is_recording() else None

    def close(self) -> None:
        """Send what is left, for a few seconds at most; blocks."""
        self._exporter.close_soon()
        self._provider.shutdown()


class _Span:
    def __init__(self, tracer: api.Tracer, span: api.Span) -> None:
        self._tracer = tracer
        self._span = span
        # Stages are measured by a clock that starts anywhere.
        self._zero_ns = time_ns() - int(perf_counter() * 1e9)

    @property
    def trace_id(self) -> str:
        return api.format_trace_id(self._span.get_span_context().trace_id)

    def end(self, stages: Stages, attributes: Mapping[str, str | int], *, failed: bool) -> None:
        within: dict[int | None, contexts.Context] = {
            None: api.set_span_in_context(self._span, contexts.Context())
        }
        # By number a stage comes after the one that it is a part of.
        for each in sorted(stages.spans):
            span = self._tracer.start_span(
                each.name,
                # What it is a part of is not over, when somebody else still waits for that.
                context=within.get(each.inside, within[None]),
                start_time=self._at_ns(each.started_s),
            )
            within[each.number] = api.set_span_in_context(span, contexts.Context())
            span.end(self._at_ns(each.ended_s))
        self._span.set_attributes(dict(attributes))
        if failed:
            self._span.set_status(api.StatusCode.ERROR)
        self._span.end()

    def _at_ns(self, at_s: float) -> int:
        return self._zero_ns + int(at_s * 1e9)


class _SaysOnce(SpanExporter):
    """Says when spans begin to be lost, and when they arrive again.

    Attributes:
        closing: nothing is worth waiting for any more.
    """

    def __init__(self, exporter: SpanExporter, url: str) -> None:
        self._exporter = exporter
        self._url = url
        self._lost = 0
        self.closing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.closing and self._lost:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.info("traces arrive again", endpoint=self._url, lost_spans=self._lost)
            self._lost = 0
        else:
            if not self._lost:
                log.warning("traces are lost, for their collector does not answer", url=self._url)
            self._lost += len(spans)
        return result

    def close_soon(self) -> None:
        """Send what is left, but do not try what failed again and again."""
        self.closing = True
        if self._lost:
            self.shutdown()

    def shutdown(self) -> None:
        self._exporter.shutdown()
