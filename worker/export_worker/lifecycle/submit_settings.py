"""The settings of a connection about when its exports are submitted."""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from export_worker.contract.documented import Documented
from export_worker.lifecycle.windows import Windows

ENTRIES_MAX = 100
"""Hours or times of maintenance of one connection: several for each day, or the holidays of some years."""


class SubmitWindows(Documented):
    """The hours in which exports of this connection are submitted, and times of maintenance without submits.

    Polls and transfers continue at all times. An export that is accepted outside of the windows waits for the next one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    timezone: Annotated[str, Field(max_length=64)] = "UTC"
    """The time zone of all hours, as the IANA database names it: `Asia/Shanghai`.

    At most 64 characters. Default `UTC`.

    When the clocks change, an hour that is skipped is in no window, and an hour that is repeated is in its windows
    twice."""
    open: Annotated[tuple[str, ...], Field(max_length=ENTRIES_MAX)] = ()
    """Hours in which exports are submitted: `06:00-23:00`, or of some days, `mon-fri,sun 22:00-06:00`. Default: all.

    Hours that end before they begin end on the next day. At most 100 entries."""
    closed: Annotated[tuple[str, ...], Field(max_length=ENTRIES_MAX)] = ()
    """Hours in which no export is submitted, in the form of `open`, or times of maintenance. Default: none.

    A time of maintenance is `2026-12-24T00:00/2026-12-26T06:00`. `closed` applies over `open`. At most 100 entries."""

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.windows()
        return self

    def windows(self) -> Windows | None:
        """Returns the windows; None if exports are submitted at all times.

        Raises:
            ValueError: An entry is wrong, or exports are never submitted.
        """
        if self.open or self.closed or "timezone" in self.model_fields_set:
            windows = Windows.read(self.timezone, self.open, self.closed)
            return windows if self.open or self.closed else None
        return None


class OperationRetrySettings(Documented):
    """What a worker does when the platform reports that an operation has failed.

    By default the export fails with `platform_error`. Otherwise its slot is freed, and after a wait the export is
    submitted again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    times: Annotated[int, Field(ge=0, le=10)] = 0
    """How often the operation of an export is submitted again. Default 0: never. At most 10.

    A retry by hand counts from 0 again."""
    after_s: Annotated[float, Field(ge=1, le=86_400)] = 600.0
    """Seconds between the failure of an operation and the next submit. Default 600, 1 to 86,400 (a day).

    The deadline of the export ends it also during this wait."""
