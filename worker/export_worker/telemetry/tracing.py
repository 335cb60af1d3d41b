"""Spans of every step for OpenTelemetry. Needs the extra `tracing`.

An export may take a day, and a trace of a day is of no use. Each step is therefore a separate trace, linked to the
trace of the request (W3C trace context). The completion event carries the context of the request. Calls to the platform
and stored files are spans within their step. The `OTEL_` variables set the address of the collector and the sampling.
"""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from export_worker.credentials import url_secrets
from export_worker.telemetry.instrumentation import Detail, FileStored, LeaseLost, PlatformCalled, StepTaken

PARTS_MAX = 200
"""Spans within one step; only the first ones are kept. An export may have a hundred thousand files. Their spans would
block the event loop for two seconds, and the exporter's queue, which takes 2,048, would drop them."""
FLUSH_TIMEOUT_S = 3.0
"""For sending the last spans. A collector that is down must not delay the stop of a worker for longer."""
OPEN_MAX = 10_000
"""Steps whose details are kept until they end. It is more than any worker runs, and bounds the memory for steps whose
end is never reported."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A detail within a step, and when it ended (nanoseconds since the epoch)."""

    detail: PlatformCalled | FileStored
    ended_ns: int


class Tracing:
    """Makes spans from details after they have happened, so that tracing never delays a step.

    Args:
        provider: Exports the spans.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("export_worker")
        self._parts: OrderedDict[str, list[_Part]] = OrderedDict()
        self._left_out: dict[str, int] = {}

    def on(self, detail: Detail) -> None:
        """Keeps details within a step. When the step has ended, makes its spans."""
        match detail:
            case PlatformCalled() | FileStored():
                self._keep(_Part(detail, time.time_ns()))
            case StepTaken():
                self._step(detail, self._parts.pop(detail.export_id, []), self._left_out.pop(detail.export_id, 0))
            case LeaseLost():
                self._parts.pop(detail.export_id, None)
                self._left_out.pop(detail.export_id, None)
            case _:
                return

    def _keep(self, part: _Part) -> None:
        export_id = part.detail.export_id
        parts = self._parts.setdefault(export_id, [])
        if len(parts) < PARTS_MAX:
            parts.append(part)
        else:
            self._left_out[export_id] = self._left_out.get(export_id, 0) + 1
        if len(self._parts) > OPEN_MAX:
            oldest, _ = self._parts.popitem(last=False)
            self._left_out.pop(oldest, None)

    def _step(self, step: StepTaken, parts: list[_Part], left_out: int) -> None:
        ended_ns = time.time_ns()
        span = self._tracer.start_span(
            f"export.step {step.before.value}",
            context=Context(),
            kind=SpanKind.CONSUMER,
            links=_links(step.trace),
            start_time=ended_ns - _ns(step.duration_s),
            attributes=_attributes(step, left_out),
        )
        _set_error(span, step.code)
        for part in parts:
            self._part(part, set_span_in_context(span, Context()))
        span.end(ended_ns)

    def _part(self, part: _Part, within: Context) -> None:
        detail = part.detail
        name = f"platform.{detail.verb}" if isinstance(detail, PlatformCalled) else "file.store"
        start_ns = part.ended_ns - _ns(detail.duration_s)
        span = self._tracer.start_span(name, context=within, kind=SpanKind.CLIENT, start_time=start_ns)
        if isinstance(detail, PlatformCalled):
            _set_error(span, detail.code)
        else:
            span.set_attributes({"file.source_bytes": detail.source_bytes, "file.stored_bytes": detail.stored_bytes})
        span.end(part.ended_ns)

    async def close(self) -> None:
        """Sends the remaining spans, as many as the collector takes within `FLUSH_TIMEOUT_S`.

        The exporter blocks, so it runs in a thread. The process does not wait for this thread when the process exits.
        """
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self.provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed: nothing waits for the thread
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=send, name="spans", daemon=True).start()
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), FLUSH_TIMEOUT_S)


def open_tracing(namespace: str) -> Tracing:
    """Returns tracing that sends spans by OTLP over HTTP, to the address in `OTEL_EXPORTER_OTLP_ENDPOINT`.

    Raises:
        ValueError: OpenTelemetry refuses an `OTEL_` variable. The import of this module already refuses some of them.
    """
    ours = {"service.name": "export-worker", "service.namespace": namespace}
    # The detected attributes come last: otherwise ours would override OTEL_SERVICE_NAME.
    resource = Resource.create({**ours, **OTELResourceDetector().detect().attributes})
    # With `shutdown_on_exit` the provider would send again, and wait, when Python exits.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def secrets(environment: Mapping[str, str]) -> Iterator[str]:
    """Yields the credentials for the collector, to be masked: a failed request logs the whole address."""
    for prefix in ("OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_TRACES"):
        for header in environment.get(f"{prefix}_HEADERS", "").split(","):
            name, _, value = header.partition("=")
            yield unquote(value or name).strip()  # a header without "=" is malformed, and the exporter logs it
        address = environment.get(f"{prefix}_ENDPOINT", "")
        yield from url_secrets(address)


def _attributes(step: StepTaken, left_out: int) -> dict[str, str | int]:
    """Returns the attributes of a step's span. None of them is free text from a platform or a request."""
    attributes: dict[str, str | int] = {
        "export.id": step.export_id,
        "export.connection": step.connection,
        "export.kind": step.kind,
        "export.step": step.step,
        "export.phase.before": step.before.value,
        "export.phase.after": step.after.value,
    }
    return attributes | ({"export.parts_left_out": left_out} if left_out else {})


def _links(traceparent: str) -> list[Link]:
    """Returns a link to the request's span, if the request has a valid one."""
    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, context=Context())
    requested = get_current_span(context).get_span_context()
    return [Link(requested)] if requested.is_valid else []


def _set_error(span: Span, code: str | None) -> None:
    if code is not None:
        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR, code))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
