"""Spans of every step for OpenTelemetry; needs the extra `tracing`.

An export may take a day, and a trace of a day is of no use: each step is a trace of its own, linked to the request that
the export came with (W3C trace context). The completion event carries the request's context on. Calls to the platform
and files that were stored are spans within their step. Where spans go, and which of them, the `OTEL_` variables say.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from export_worker.instrumentation import Detail, FileStored, LeaseLost, PlatformCalled, StepTaken

OPEN_MAX = 10_000
"""Steps whose parts are kept until they end; more than any worker runs, and a bound should an end never be told."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Something within a step, and when it ended (ns since the epoch)."""

    detail: PlatformCalled | FileStored
    ended_ns: int


class Tracing:
    """Makes spans of what has happened; nothing of it is on the way of a step.

    Args:
        provider: Where spans go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("export_worker")
        self._parts: OrderedDict[str, list[_Part]] = OrderedDict()

    def on(self, detail: Detail) -> None:
        """Keep what happens within a step; when the step has ended, make its spans."""
        match detail:
            case PlatformCalled() | FileStored():
                self._parts.setdefault(detail.export_id, []).append(_Part(detail, time.time_ns()))
                if len(self._parts) > OPEN_MAX:
                    self._parts.popitem(last=False)
            case StepTaken():
                self._step(detail, self._parts.pop(detail.export_id, []))
            case LeaseLost():
                self._parts.pop(detail.export_id, None)
            case _:
                return

    def _step(self, step: StepTaken, parts: list[_Part]) -> None:
        ended_ns = time.time_ns()
        span = self._tracer.start_span(
            f"export.step {step.before.value}",
            context=Context(),
            kind=SpanKind.CONSUMER,
            links=_links(step.trace),
            start_time=ended_ns - _ns(step.duration_s),
            attributes={
                "export.id": step.export_id,
                "export.connection": step.connection,
                "export.kind": step.kind,
                "export.step": step.step,
                "export.phase.before": step.before.value,
                "export.phase.after": step.after.value,
            },
        )
        _failed(span, step.code)
        for part in parts:
            self._part(part, set_span_in_context(span, Context()))
        span.end(ended_ns)

    def _part(self, part: _Part, within: Context) -> None:
        detail = part.detail
        name = f"platform.{detail.verb}" if isinstance(detail, PlatformCalled) else "file.store"
        start_ns = part.ended_ns - _ns(detail.duration_s)
        span = self._tracer.start_span(name, context=within, kind=SpanKind.CLIENT, start_time=start_ns)
        if isinstance(detail, PlatformCalled):
            _failed(span, detail.code)
        else:
            span.set_attributes({"file.source_bytes": detail.source_bytes, "file.stored_bytes": detail.stored_bytes})
        span.end(part.ended_ns)

    async def close(self) -> None:
        """Send what is left. The exporter blocks, so not on the loop."""
        await asyncio.to_thread(self._provider.shutdown)


def open_tracing(namespace: str) -> Tracing:
    """Spans by OTLP over HTTP, to where `OTEL_EXPORTER_OTLP_ENDPOINT` says."""
    resource = Resource.create({"service.name": "export-worker", "service.namespace": namespace})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _links(traceparent: str) -> list[Link]:
    """The request's span, unless there is none or it cannot be read."""
    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, context=Context())
    asked = get_current_span(context).get_span_context()
    return [Link(asked)] if asked.is_valid else []


def _failed(span: Span, code: str | None) -> None:
    if code is not None:
        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR, code))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
