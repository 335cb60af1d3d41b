"""Spans of every step for OpenTelemetry; needs the extra `tracing`.

An export may take a day, and a trace of a day is of no use: each step is a trace of its own, linked to the request that
the export came with (W3C trace context). The completion event carries the request's context on. Calls to the platform
and files that were stored are spans within their step. Where spans go, and which of them, the `OTEL_` variables say.
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
"""Of one step; the first of them. An export may have a hundred thousand files, and all their spans at once would keep
the loop for two seconds, to be dropped by a queue that takes 2,048."""
FLUSH_MAX_S = 3.0
"""What a collector gets to take the last spans: one that is away must not hold up the end of a worker."""
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
        self.provider = provider
        self._tracer = provider.get_tracer("export_worker")
        self._parts: OrderedDict[str, list[_Part]] = OrderedDict()
        self._left_out: dict[str, int] = {}

    def on(self, detail: Detail) -> None:
        """Keep what happens within a step; when the step has ended, make its spans."""
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
            attributes=_about(step, left_out),
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
        """Send what is left, as far as the collector takes it within `FLUSH_MAX_S`.

        The exporter blocks, so not on the loop; and by a thread that the process does not wait for at its end.
        """
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self.provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=send, name="spans", daemon=True).start()
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), FLUSH_MAX_S)


def open_tracing(namespace: str) -> Tracing:
    """Spans by OTLP over HTTP, to where `OTEL_EXPORTER_OTLP_ENDPOINT` says.

    Raises:
        ValueError: OpenTelemetry does not take an `OTEL_` variable; of some it says so when this module is imported.
    """
    ours = {"service.name": "export-worker", "service.namespace": namespace}
    # Named over ours: Resource.create would let ours win over OTEL_SERVICE_NAME.
    resource = Resource.create({**ours, **OTELResourceDetector().detect().attributes})
    # By itself it would send once more when Python ends, and wait for it.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def secrets(environment: Mapping[str, str]) -> Iterator[str]:
    """What may let somebody into the collector, to be masked: the exporter names the whole address when it fails."""
    for name in ("OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_TRACES"):
        for header in environment.get(f"{name}_HEADERS", "").split(","):
            name_of_it, _, value = header.partition("=")
            yield unquote(value or name_of_it).strip()  # what has no sign is malformed, and the exporter shows it
        address = environment.get(f"{name}_ENDPOINT", "")
        yield from url_secrets(address)


def _about(step: StepTaken, left_out: int) -> dict[str, str | int]:
    """Attributes of a step's span; nothing that came from a platform or a request's text is among them."""
    about: dict[str, str | int] = {
        "export.id": step.export_id,
        "export.connection": step.connection,
        "export.kind": step.kind,
        "export.step": step.step,
        "export.phase.before": step.before.value,
        "export.phase.after": step.after.value,
    }
    return about | ({"export.parts_left_out": left_out} if left_out else {})


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
