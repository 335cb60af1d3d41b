"""How far the archive of ended exports is: written by the worker that archives, read by everyone."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from export_worker.contract.model import Model, Timestamp

LAG_MAX_S = 3 * 3600
"""An hour is archived minutes after it is over. With a longer lag, something is wrong."""


class ArchiveState(Model):
    """The state of the archive of one namespace. Times are RFC 3339."""

    model_config = ConfigDict(extra="ignore", strict=False)

    uri: str
    """The address of the archive: `s3://`, the bucket and the prefix."""
    until: Timestamp
    """Every export that ended before this time is in the archive."""
    retention_s: Annotated[float, Field(ge=0)]
    """Seconds for which Redis keeps ended exports."""
    problem: str = ""
    """Why the last attempt has failed. Empty if it has not."""

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes]) -> "ArchiveState | None":
        """Returns the state that a hash has; None if there is none, or if it cannot be read."""
        if not fields:
            return None
        try:
            return cls.model_validate({name.decode(): value.decode() for name, value in fields.items()})
        except (ValidationError, ValueError):
            return None

    def lag_s(self, now: datetime) -> float:
        """Returns the age (seconds) of the oldest end that may not be archived yet."""
        return max(0.0, (now - self.until).total_seconds())

    def kept_since(self, now: datetime) -> datetime:
        """Returns the time since which Redis has all ended exports."""
        return now - timedelta(seconds=self.retention_s)


class ArchivePointer(Model):
    """Where exports are that Redis no longer keeps."""

    uri: str
    """The address of the archive: `s3://`, the bucket and the prefix. Its files are Parquet."""
    before: Timestamp
    """The archive has the exports that ended before this time, and Redis may have forgotten them."""
