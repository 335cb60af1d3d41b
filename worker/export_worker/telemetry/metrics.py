"""Metrics for Prometheus, named by its rules; labels have few values (connection, kind, role, call, code, sink).

No export id is a label: an id is told by the log and by the trace. "Not yet" is in no error metric.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import assert_never, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from export_worker.contract.redis_keys import Role
from export_worker.errors import ErrorCode
from export_worker.telemetry.instrumentation import (
    Detail,
    EventDelivered,
    EventRefused,
    ExportEnded,
    FileStored,
    LeaseLost,
    PlatformCalled,
    PlatformVerb,
    StepTaken,
    StorageCalled,
    UploadSwept,
)
from export_worker.telemetry.queue_stats import QueueSnapshot

CALL_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""From a local answer to the longest that a submit may take."""
STEP_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200)
"""From a poll to the transfer of a very large file."""
EXPORT_BUCKETS_S = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86_400)
"""Exports take seconds or hours; the default deadline is a day."""
POLL_BUCKETS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 100, 300, 1000)
AGE_BUCKETS_S = (0.1, 0.5, 1, 5, 15, 60, 300, 3600)

PREFIX = "export_worker_"
OTHER = "other"
"""Every connection that is not configured here: whoever asks for exports could make up as many series as names."""
QUEUE_METRICS = {
    "queue_due": ("due_now", "role", "Steps that are due or run"),
    "queue_oldest_due_age_seconds": (
        "oldest_due_age_s",
        "role",
        "How long the oldest step waits that nobody has taken",
    ),
    "transfer_left_bytes": ("left_bytes", "", "Announced bytes that transferring exports have still to move"),
    "exports": ("exports", "phase", "Exports by phase"),
    "breaker_open": (
        "breaker_open",
        "connection",
        "Whether a platform is left alone, or tried again, because it did not answer",
    ),
    "parked_exports": ("parked", "connection", "Exports that wait for a slot of their connection"),
    "events_pending": ("events_pending", "sink", "Events that a sink has still to take"),
    "events_undelivered": ("events_undelivered", "sink", "Events that were given up for a sink"),
    "oldest_event_due_age_seconds": ("oldest_event_due_age_s", "sink", "How long the oldest delivery is overdue"),
    "oldest_event_refused_age_seconds": (
        "oldest_refusal_age_s",
        "sink",
        "How long a sink has refused the event that it has refused for longest",
    ),
    "workers": ("workers", "", "Workers that said within the last seconds that they live"),
}
"""Numbers of the namespace: the field of the reading, its label or none, and what it tells."""


class Metrics:
    """One process's metrics, in a registry of their own.

    Args:
        connections: That are told by name. Their refused credentials are counted from zero on: a counter that begins
            with one does not seem to have grown, and a graph would miss the first.
        sinks: Whose refusals are, likewise.
    """

    def __init__(self, connections: Sequence[str] = (), sinks: Sequence[str] = ()) -> None:
        self._connections = frozenset(connections)
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._steps = Histogram(
            "export_worker_step_duration_seconds",
            "Steps that were taken and saved, by the phase in which they began",
            ("role", "connection", "phase"),
            buckets=STEP_BUCKETS_S,
            registry=registry,
        )
        self._retries = Counter(
            "export_worker_step_retries_total",
            "Steps that failed and are tried again",
            ("connection", "code"),
            registry=registry,
        )
        self._ended = Counter(
            "export_worker_exports_ended_total",
            "Exports that reached a terminal phase",
            ("connection", "kind", "phase", "code"),
            registry=registry,
        )
        self._durations = Histogram(
            "export_worker_export_duration_seconds",
            "From the moment an export was set going to its end",
            ("connection", "kind"),
            buckets=EXPORT_BUCKETS_S,
            registry=registry,
        )
        self._polls = Histogram(
            "export_worker_export_polls",
            "Looks at the platform that an export took, those that said not yet included",
            ("connection", "kind"),
            buckets=POLL_BUCKETS,
            registry=registry,
        )
        self._leases = Counter(
            "export_worker_lease_losses_total", "Steps taken over by another worker", ("role",), registry=registry
        )
        self._platform = _PlatformMetrics(registry)
        self._storage = _StorageMetrics(registry)
        self._events = _EventMetrics(registry)
        self._queue = _QueueMetrics(registry)
        for role in get_args(Role):
            self._leases.labels(role)
        for name in connections:
            self._platform.expect(name)
        for name in sinks:
            self._events.expect(name)

    def on(self, detail: Detail) -> None:
        """Count it."""
        match detail:
            case StepTaken():
                connection = self._named(detail.connection)
                self._steps.labels(detail.role, connection, detail.before.value).observe(detail.duration_s)
                if detail.retries:
                    self._retries.labels(connection, detail.code).inc()
            case ExportEnded():
                connection = self._named(detail.connection)
                self._ended.labels(connection, detail.kind, detail.phase.value, detail.code or "").inc()
                self._durations.labels(connection, detail.kind).observe(detail.duration_s)
                self._polls.labels(connection, detail.kind).observe(detail.polls)
            case LeaseLost():
                self._leases.labels(detail.role).inc()
            case PlatformCalled():
                self._platform.on(detail)
            case StorageCalled() | FileStored() | UploadSwept():
                self._storage.on(detail)
            case EventDelivered() | EventRefused():
                self._events.on(detail)
            case _:
                assert_never(detail)

    def _named(self, connection: str) -> str:
        return connection if connection in self._connections else OTHER

    def names(self) -> set[str]:
        """Every metric, as the text form names its kind."""
        return {family.name for family in self._registry.collect()}

    async def text(self, reading: QueueSnapshot | None) -> bytes:
        """Everything in Prometheus's text form.

        Args:
            reading: The queue's numbers; None when Redis did not give them, and then there are none here either.
        """
        self._queue.set(reading)
        # The process's own numbers come from /proc, and files are not read on the loop.
        return await asyncio.to_thread(generate_latest, self._registry)


class _PlatformMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._durations = Histogram(
            "export_worker_platform_call_duration_seconds",
            "Calls to a platform by what was asked",
            ("connection", "call"),
            buckets=CALL_BUCKETS_S,
            registry=registry,
        )
        self._errors = Counter(
            "export_worker_platform_errors_total",
            "Calls to a platform that failed",
            ("connection", "call", "code"),
            registry=registry,
        )

    def expect(self, connection: str) -> None:
        for verb in get_args(PlatformVerb):
            self._errors.labels(connection, verb, ErrorCode.AUTH_FAILED.value)

    def on(self, detail: PlatformCalled) -> None:
        self._durations.labels(detail.connection, detail.verb).observe(detail.duration_s)
        if detail.code is not None:
            self._errors.labels(detail.connection, detail.verb, detail.code).inc()


class _StorageMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._durations = Histogram(
            "export_worker_storage_call_duration_seconds",
            "Calls to S3; those of upload_part are the parts",
            ("call",),
            buckets=CALL_BUCKETS_S,
            registry=registry,
        )
        self._errors = Counter(
            "export_worker_storage_errors_total", "Calls to S3 that failed", ("call", "error"), registry=registry
        )
        self._sent = Counter("export_worker_storage_sent_bytes_total", "Bytes that S3 took", registry=registry)
        self._parts = Counter(
            "export_worker_parts_sent_total", "Parts of multipart uploads that S3 took", registry=registry
        )
        self._source = Counter(
            "export_worker_transfer_bytes_total",
            "Bytes of stored files, as they came",
            ("connection", "kind"),
            registry=registry,
        )
        self._swept = Counter(
            "export_worker_uploads_swept_total",
            "Incomplete uploads of exports that had ended or gone, aborted after a day",
            registry=registry,
        )
        self._files = Counter(
            "export_worker_files_stored_total", "Files that stand in S3", ("connection", "kind"), registry=registry
        )
        self._seconds = Counter(
            "export_worker_transfer_seconds_total",
            "Time that files took to move",
            ("connection", "kind"),
            registry=registry,
        )

    def on(self, detail: StorageCalled | FileStored | UploadSwept) -> None:
        match detail:
            case StorageCalled():
                self._durations.labels(detail.call).observe(detail.duration_s)
                if detail.error is not None:
                    self._errors.labels(detail.call, detail.error).inc()
                    return
                self._sent.inc(detail.sent_bytes)
                self._parts.inc(detail.call == "upload_part")
            case FileStored():
                labels = detail.connection, detail.kind
                self._source.labels(*labels).inc(detail.source_bytes)
                self._files.labels(*labels).inc()
                self._seconds.labels(*labels).inc(detail.duration_s)
            case UploadSwept():
                self._swept.inc()
            case _:
                assert_never(detail)


class _EventMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._ages = Histogram(
            "export_worker_event_age_seconds",
            "From the end of an export to the delivery of its event",
            ("sink",),
            buckets=AGE_BUCKETS_S,
            registry=registry,
        )
        self._refused = Counter(
            "export_worker_event_refusals_total", "Deliveries that a sink did not take", ("sink",), registry=registry
        )

    def expect(self, sink: str) -> None:
        self._refused.labels(sink)

    def on(self, detail: EventDelivered | EventRefused) -> None:
        match detail:
            case EventDelivered():
                self._ages.labels(detail.sink).observe(detail.age_s)
            case EventRefused():
                self._refused.labels(detail.sink).inc()
            case _:
                assert_never(detail)


class _QueueMetrics(Collector):
    """The namespace's numbers, the same from every process; `max` over processes is right, `sum` is not.

    While Redis does not give them there are none: a NaN would get into sums, and into what an autoscaler reads.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reading: QueueSnapshot | None = None
        registry.register(self)

    def set(self, reading: QueueSnapshot | None) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        """Every metric, those of which nothing is known without a sample."""
        reading = self._reading
        up = GaugeMetricFamily(f"{PREFIX}redis_up", "Whether Redis gave the numbers of the queue")
        up.add_metric([], float(reading is not None))
        yield up
        for name, (field, label, text) in QUEUE_METRICS.items():
            family = GaugeMetricFamily(PREFIX + name, text, labels=[label] if label else [])
            value = None if reading is None else getattr(reading, field)
            for key, number in value.items() if label and value is not None else ():
                family.add_metric([key], float(number))
            if not label and value is not None:
                family.add_metric([], float(value))
            yield family
