"""The keys of the archive. Pure.

    PREFIX namespace=NAMESPACE/date=YYYY-MM-DD/hour=HH/exports-YYYYMMDDTHH.parquet
                                                       _SUCCESS

An hour has one file at most, under a key that every worker computes alike, and the file is complete when it appears. So
a reader sees all exports of an hour or none of them. `_SUCCESS` follows the file; an hour in which no export ended has
`_SUCCESS` alone. Readers of folders pass over it, because its name begins with an underscore.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

HOUR = timedelta(hours=1)
SETTLE = timedelta(seconds=120)
"""An hour is archived when it has been over for this time. A replica of Redis that is promoted lags behind by less."""
PARQUET_TYPE = "application/vnd.apache.parquet"
"""The media type that IANA has registered."""


def hour_of(moment: datetime) -> datetime:
    """Returns the start of the hour of a moment, in UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


@dataclass(frozen=True, slots=True)
class HourKeys:
    """The keys of one hour.

    Args:
        owner: The part of both keys that no other hour and no other namespace has. It is in the objects' metadata.
        file: The key of the file.
        marker: The key of `_SUCCESS`.
    """

    owner: str
    file: str
    marker: str


@dataclass(frozen=True, slots=True)
class ArchiveFolder:
    """Where one namespace archives its exports.

    Args:
        prefix: Text before every key. It ends with a slash.
    """

    bucket: str
    prefix: str
    namespace: str

    @property
    def uri(self) -> str:
        """The address of the whole archive."""
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def own_prefix(self) -> str:
        """The beginning of every key of this namespace."""
        return f"{self.prefix}namespace={quote(self.namespace, safe='')}/"

    def hour(self, start: datetime) -> HourKeys:
        """Returns the keys of the hour that begins at a moment."""
        owner = f"namespace={quote(self.namespace, safe='')}/{start:date=%Y-%m-%d/hour=%H}"
        folder = f"{self.prefix}{owner}/"
        return HourKeys(owner, f"{folder}exports-{start:%Y%m%dT%H}.parquet", f"{folder}_SUCCESS")


def is_due(start: datetime, now: datetime) -> bool:
    """Returns whether the hour that begins at a moment may be archived."""
    return start + HOUR + SETTLE <= now
