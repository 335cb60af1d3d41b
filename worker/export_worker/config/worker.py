"""The sections `retry` and `worker`."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from export_worker.config.section import Section
from export_worker.contract.model import field_rule
from export_worker.contract.order import check_order
from export_worker.s3.object_keys import archive_prefix

LEASE_MIN_S = 3.0
"""Workers claim and renew once a second, and a lease must survive two renewals that are late or lost."""

ARCHIVED_RETENTION_MIN_S = 6 * 3600.0
"""An hour is archived minutes after its end. The rest is time to repair a store, or an archive that does not work."""


def _checked_lease(lease_s: float) -> float:
    if lease_s < LEASE_MIN_S:
        why = "a worker renews its leases once a second, and a shorter lease would end although its worker lives"
        raise PydanticCustomError("short_lease", f"must be at least {LEASE_MIN_S:g} (seconds): {why}")
    return lease_s


class RetrySettings(Section):
    """How often a step may fail in a row, and the waits between its attempts.

    With the defaults a step survives an outage of about ten minutes. The circuit breakers handle a longer outage of a
    platform.
    """

    max_attempts: Annotated[int, Field(ge=1)] = 12
    """The number of failures in a row after which the export fails. Default 12, at least 1."""
    first_s: Annotated[float, Field(gt=0)] = 1.0
    """The longest first wait (seconds). The limit doubles with each failure.

    Default 1, above 0, not above `max_s`."""
    max_s: Annotated[float, Field(gt=0)] = 300.0
    """The longest wait (seconds). Default 300, above 0."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        check_order(self, "first_s", "max_s")
        return self


def _checked_prefix(prefix: str) -> str:
    try:
        return archive_prefix(prefix)
    except ValueError as error:
        raise PydanticCustomError("archive_prefix", "{problem}", {"problem": str(error)}) from None


class ArchiveSettings(Section):
    """Where ended exports are kept for good: `worker.archive`. Needs the extra `parquet` on transfer workers."""

    prefix: Annotated[str, AfterValidator(_checked_prefix)]
    """The folder of the archive, behind `s3.prefix` in the bucket of `[s3]`, e.g. `history/`. Required.

    1 to 500 characters. No name in it may begin with `_` or `.`, because readers of folders pass over such names."""


class WorkerSettings(Section):
    """The concurrency of one worker process, its leases, its stop, and its health pages."""

    control_steps: Annotated[int, Field(ge=1)] = 50
    """The number of submits and polls at once. Default 50, at least 1."""
    transfers: Annotated[int, Field(ge=1)] = 4
    """The number of exports whose files are transferred at once. Default 4, at least 1.

    A worker with several connections gives each of them one slot less, so that slow downloads of one connection do not
    delay the others."""
    lease_s: Annotated[float, AfterValidator(_checked_lease), Field(json_schema_extra={"minimum": LEASE_MIN_S})] = 15.0
    """A worker that does not renew its lease for this time (seconds) loses the step. Default 15, at least 3.

    Below 8 s, an outage of Redis of 2 to 3 s may end a lease although its worker lives."""
    sweep_s: Annotated[float, Field(gt=0)] = 5.0
    """Seconds between searches for overdue exports. Default 5, above 0."""
    drain_s: Annotated[float, Field(ge=0)] = 10.0
    """Seconds that running steps have to end after a stop signal. Default 10, at least 0."""
    retention_s: Annotated[float, Field(ge=60)] = 7 * 86_400.0
    """Seconds that the status of an ended export is kept. Default 604,800 (7 days), at least 60."""
    archive: ArchiveSettings | None = None
    """Writes every ended export as one row of a Parquet file, one file an hour, e.g. `{ prefix = "history/" }`.

    Then `retention_s` can be a day, and must be at least 21,600 (6 hours). Default: no archive."""
    breaker_first_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """The first pause of calls that fail: all calls to a platform that is down, or the submits, polls or transfers
    that fail for several exports (seconds). It doubles after each failed probe.

    Default 5, above 0, not above `breaker_max_s`, at most 3600."""
    breaker_max_s: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """The longest pause of calls that fail (seconds). Default 300, above 0, at most 3600."""
    health_host: str = "127.0.0.1"
    """The address on which `/healthz`, `/readyz` and `/metrics` are served. Default `127.0.0.1`: this machine only."""
    health_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """The TCP port of these pages. 0 picks a free port, which is logged. At most 65535. Default: no pages."""
    tracing: bool = False
    """Whether to send spans to the collector that the `OTEL_` variables name. Needs the extra `tracing`.

    Default: false."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        check_order(self, "breaker_first_s", "breaker_max_s")
        return self

    @model_validator(mode="after")
    def _keeps_until_archived(self) -> Self:
        if self.archive is not None and self.retention_s < ARCHIVED_RETENTION_MIN_S:
            reason = "an export must not expire before it is archived"
            raise field_rule("retention_s", f"must be at least {ARCHIVED_RETENTION_MIN_S:g} with an archive: {reason}")
        return self
