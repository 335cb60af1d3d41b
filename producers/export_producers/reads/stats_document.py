"""The hourly statistics. Needs only pydantic."""

from typing import Literal

from pydantic import ConfigDict

from export_worker.contract.model import Model, Timestamp
from export_worker.contract.status import Count


class _Report(Model):
    """A part of the statistics. Fields may be added."""

    model_config = ConfigDict(extra="ignore", strict=False)


class EndedByPhase(_Report):
    """The exports that ended in one hour."""

    succeeded: Count = 0
    """Those that succeeded."""
    failed: Count = 0
    """Those that failed."""
    cancelled: Count = 0
    """Those that were cancelled."""


class StatsHour(_Report):
    """What was counted in one hour. An export that is retried counts each time it ends."""

    start: Timestamp
    """When the hour began."""
    ended: EndedByPhase
    """The exports that ended, by phase."""
    codes: dict[str, Count]
    """The failed exports by error code."""
    bytes: Count
    """The bytes in S3 of the exports that succeeded."""
    durations: list[Count]
    """The exports by the time from their acceptance, or last retry, to their end: one number for each of `buckets_s`,
    and a last one for longer times. An export counts in one bucket only."""


class Stats(_Report):
    """What ended, by hour. Hours in which nothing ended have zeros."""

    connection: str | None
    """The connection. Null for all of them together."""
    step: Literal["hour"] = "hour"
    """The length of each period."""
    buckets_s: list[float]
    """The upper limits of the buckets of durations, in seconds."""
    hours: list[StatsHour]
    """The hours, the oldest first. Workers count since the update to this version, and keep 14 days."""
    missing_queues: list[str] = []
    """The queues whose part is missing, because their Redis cannot be reached. Only of a gateway with several."""
