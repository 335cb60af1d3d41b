"""Metrics for Prometheus, named by its rules. Labels have few values: connection, kind, role, call, code, sink.

No label has the id of an export; logs and traces have it. A poll that finds "not yet" counts in no error metric.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import product
from typing import assert_never, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from export_worker.contract.durations import BUCKETS_S
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
    ScheduleDecided,
    StepTaken,
    StorageCalled,
    StoreChecked,
    SubmitOutcome,
    SubmitUnclear,
    UploadSwept,
)
from export_worker.telemetry.logs import dropped_lines
from export_worker.telemetry.queue_stats import QueueSnapshot

CALL_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""From an answer within one network to the longest submit."""
STEP_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200)
"""From a poll to the transfer of a very large file."""
POLL_BUCKETS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 100, 300, 1000)
"""From an export that was ready at the first poll to one that is polled for a day."""
AGE_BUCKETS_S = (0.1, 0.5, 1, 5, 15, 60, 300, 3600)
"""From an immediate delivery to one after many retries."""

PREFIX = "export_worker_"
OTHER = "other"
"""The label of every connection that is not configured here. Requests must not create series by inventing names."""
QUEUE_METRICS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "queue_due": ("due_now", ("role",), "Steps that are due or running"),
    "queue_oldest_due_age_seconds": (
        "oldest_due_age_s",
        ("role",),
        "Seconds since the oldest due step that no worker runs became due",
    ),
    "transfer_left_bytes": ("left_bytes", (), "Known bytes that transferring exports have left to move"),
    "exports": ("exports", ("phase",), "Exports by phase"),
    "breaker_open": (
        "breaker_open",
        ("connection", "kind"),
        "Whether calls are paused or probed: those to a platform that is down, or failing submits, polls or transfers",
    ),
    "parked_exports": ("parked", ("connection",), "Exports that wait for a slot of their connection"),
    "submit_window_closed": (
        "closed",
        ("connection",),
        "Whether a connection is outside of its submit windows, so that its exports wait",
    ),
    "slow_exports": (
        "slow",
        ("connection", "kind"),
        "Exports that run on the platform for much longer than the last ones of their kind",
    ),
    "events_pending": ("events_pending", ("sink",), "Events that are not yet delivered to a sink"),
    "events_undelivered": ("events_undelivered", ("sink",), "Events that were given up for a sink"),
    "oldest_event_due_age_seconds": (
        "oldest_event_due_age_s",
        ("sink",),
        "Seconds since the oldest due delivery became due",
    ),
    "oldest_event_refused_age_seconds": (
        "oldest_refusal_age_s",
        ("sink",),
        "Seconds since the first refusal of the event that a sink has refused for the longest time",
    ),
    "workers": ("workers", (), "Workers whose last heartbeat is recent"),
    "batches": ("batches", ("state",), "Batches that are open, and that have ended without an event yet"),
    "archive_lag_seconds": (
        "archive_lag_s",
        (),
        "Seconds since the end of the last hour whose ended exports are archived",
    ),
}
"""Metrics of the namespace: name → field of the snapshot, labels, and help text."""


class Metrics:
    """The metrics of one process, in a separate registry.

    Args:
        connections: Names that may be labels. Their counters of refused credentials start at zero: a counter whose
            first value is 1 shows no increase, so a graph would miss the first error.
        sinks: Names whose counters of refusals start at zero, for the same reason.
        schedules: Names whose counters of all outcomes start at zero, for the same reason.
    """

    def __init__(
        self, connections: Sequence[str] = (), sinks: Sequence[str] = (), schedules: Sequence[str] = ()
    ) -> None:
        self._connections = frozenset(connections)
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_LogMetrics())
        self._steps = Histogram(
            "export_worker_step_duration_seconds",
            "Duration of saved steps, by the phase in which they started",
            ("role", "connection", "phase"),
            buckets=STEP_BUCKETS_S,
            registry=registry,
        )
        self._retries = Counter(
            "export_worker_step_retries_total",
            "Steps that failed and are retried",
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
            "Time from the start of an export to its end",
            ("connection", "kind"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._polls = Histogram(
            "export_worker_export_polls",
            "Polls of an export, with those that found it not ready",
            ("connection", "kind"),
            buckets=POLL_BUCKETS,
            registry=registry,
        )
        self._leases = Counter(
            "export_worker_lease_losses_total", "Steps that another worker took over", ("role",), registry=registry
        )
        self._schedules = Counter(
            "export_worker_schedule_times_total",
            "Times of schedules that this worker decided: fired, skipped, missed or refused",
            ("schedule", "outcome"),
            registry=registry,
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
        for name, outcome in product(schedules, ("fired", "skipped", "missed", "refused")):
            self._schedules.labels(name, outcome)

    def on(self, detail: Detail) -> None:
        """Counts one detail."""
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
            case ScheduleDecided():
                self._schedules.labels(detail.schedule, detail.outcome).inc()
            case LeaseLost():
                self._leases.labels(detail.role).inc()
            case PlatformCalled() | SubmitUnclear():
                self._platform.on(detail)
            case StorageCalled() | FileStored() | UploadSwept() | StoreChecked():
                self._storage.on(detail)
            case EventDelivered() | EventRefused():
                self._events.on(detail)
            case _:
                assert_never(detail)

    def _named(self, connection: str) -> str:
        return connection if connection in self._connections else OTHER

    def names(self) -> set[str]:
        """Returns the name of every metric family."""
        return {family.name for family in self._registry.collect()}

    async def text(self, snapshot: QueueSnapshot | None, *, writable: bool = True) -> bytes:
        """Returns every metric in Prometheus's text format.

        Args:
            snapshot: The metrics of the queue; None when Redis is unreachable, and then the page has none of them.
            writable: Whether Redis accepts the writes of this process.
        """
        self._queue.set(snapshot, redis_up=writable and snapshot is not None)
        # The metrics of the process are read from files in /proc, so not on the event loop.
        return await asyncio.to_thread(generate_latest, self._registry)


class _PlatformMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._durations = Histogram(
            "export_worker_platform_call_duration_seconds",
            "Duration of calls to a platform",
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
        self._unclear = Counter(
            "export_worker_unclear_submits_total",
            "Submits that the platform may have received although their operation is unknown",
            ("connection", "outcome"),
            registry=registry,
        )

    def expect(self, connection: str) -> None:
        for verb in get_args(PlatformVerb):
            self._errors.labels(connection, verb, ErrorCode.AUTH_FAILED.value)
        for outcome in get_args(SubmitOutcome):
            self._unclear.labels(connection, outcome)

    def on(self, detail: PlatformCalled | SubmitUnclear) -> None:
        if isinstance(detail, SubmitUnclear):
            self._unclear.labels(detail.connection, detail.outcome).inc()
            return
        self._durations.labels(detail.connection, detail.verb).observe(detail.duration_s)
        if detail.code is not None:
            self._errors.labels(detail.connection, detail.verb, detail.code).inc()


class _StorageMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._durations = Histogram(
            "export_worker_storage_call_duration_seconds",
            "Duration of calls to S3; upload_part sends one part",
            ("call",),
            buckets=CALL_BUCKETS_S,
            registry=registry,
        )
        self._errors = Counter(
            "export_worker_storage_errors_total", "Calls to S3 that failed", ("call", "error"), registry=registry
        )
        self._sent = Counter("export_worker_storage_sent_bytes_total", "Bytes sent to S3", registry=registry)
        self._parts = Counter(
            "export_worker_parts_sent_total", "Parts of multipart uploads sent to S3", registry=registry
        )
        self._source = Counter(
            "export_worker_transfer_bytes_total",
            "Bytes of stored files, as received from the platform",
            ("connection", "kind"),
            registry=registry,
        )
        self._swept = Counter(
            "export_worker_uploads_swept_total",
            "Incomplete uploads of exports that had ended or did not exist, aborted by the sweep",
            registry=registry,
        )
        self._files = Counter(
            "export_worker_files_stored_total", "Files stored in S3", ("connection", "kind"), registry=registry
        )
        self._seconds = Counter(
            "export_worker_transfer_seconds_total",
            "Time that transfers of files took",
            ("connection", "kind"),
            registry=registry,
        )

        self._usable = Gauge(
            "export_worker_store_usable",
            "Whether this worker can use the store of a section of the settings",
            ("store",),
            registry=registry,
        )

    def on(self, detail: StorageCalled | FileStored | UploadSwept | StoreChecked) -> None:
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
            case StoreChecked():
                self._usable.labels(detail.store).set(detail.usable)
            case _:
                assert_never(detail)


class _EventMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._ages = Histogram(
            "export_worker_event_age_seconds",
            "Time from the end of an export to the delivery of its event",
            ("sink",),
            buckets=AGE_BUCKETS_S,
            registry=registry,
        )
        self._refused = Counter(
            "export_worker_event_refusals_total", "Deliveries that a sink refused", ("sink",), registry=registry
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


class _LogMetrics(Collector):
    """The log lines that the process dropped."""

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            f"{PREFIX}log_lines_dropped_total", "Log lines dropped, because they were not read", dropped_lines()
        )


class _QueueMetrics(Collector):
    """The metrics of the namespace. Every process exports the same values: aggregate them with `max`, not `sum`.

    While Redis is unreachable they are absent: a NaN would spoil sums, and what an autoscaler reads.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._snapshot: QueueSnapshot | None = None
        self._redis_up = False
        registry.register(self)

    def set(self, snapshot: QueueSnapshot | None, *, redis_up: bool) -> None:
        self._snapshot, self._redis_up = snapshot, redis_up

    def collect(self) -> Iterator[Metric]:
        """Yields every metric; one whose value is unknown has no sample."""
        snapshot = self._snapshot
        up = GaugeMetricFamily(f"{PREFIX}redis_up", "Whether Redis accepts writes and returned these metrics")
        up.add_metric([], float(self._redis_up))
        yield up
        for name, (field, labels, text) in QUEUE_METRICS.items():
            family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
            value = None if snapshot is None else getattr(snapshot, field)
            for key, number in value.items() if labels and value is not None else ():
                family.add_metric([key] if isinstance(key, str) else key, float(number))
            if not labels and value is not None:
                family.add_metric([], float(value))
            yield family
