"""The sections `schedules.NAME`: exports that workers request at fixed times."""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from export_worker.config.section import Section
from export_worker.contract.names import unknown_name
from export_worker.errors import ConfigError, InvalidRequestError
from export_worker.lifecycle.windows import zone_of

SCHEDULES_MAX = 10_000
"""Ten times as many as the largest installation that is measured."""

_SAMPLE = datetime(2026, 12, 1, 12, tzinfo=UTC)
"""The time for which each request is checked. All dates have the same form."""


def _checked_cron(expression: str) -> str:
    try:
        cron = import_module("export_worker.schedules.cron")
    except ModuleNotFoundError:
        return expression  # producers have no package for cron; the workers check it
    cron.check_expression(expression)
    return expression


def _checked_zone(name: str) -> str:
    zone_of(name)
    return name


class ScheduleSettings(Section):
    """`[schedules.NAME]`: requests an export at each time of a cron expression, exactly once over all workers."""

    cron: Annotated[str, AfterValidator(_checked_cron)]
    """Five fields: minute, hour, day of the month, month, day of the week, such as `0 6 * * mon-fri`. Required."""
    timezone: Annotated[str, AfterValidator(_checked_zone)] = "UTC"
    """The time zone of `cron` and of the dates in `request`, such as `Asia/Shanghai`. Default `UTC`.

    A fixed time that the clock skips in spring fires right after the gap; one that it repeats in autumn fires once."""
    jitter_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """Seconds by which each time is delayed at most, so that many schedules of one time do not start at once.

    Default 0, at most 86,400. A delay ends before the next time, and is the same in all workers."""
    overlap: Literal["skip", "queue"] = "skip"
    """What happens at a time while the export of the time before has not ended: `skip` requests none, `queue` requests
    another. Default `skip`."""
    catch_up_s: Annotated[float, Field(ge=60, le=604_800)] = 3600.0
    """Seconds for which a time that was missed is still fired, while no worker ran. Of several, only the newest is.

    Default 3600, at least 60, at most 604,800 (7 days)."""
    request: dict[str, Any]
    """The request. `{date}` and `{date-N}` in its texts become the date in `timezone`, and that N days before.

    Required. It has no `idempotency_key`: the time of the schedule is the key."""


def check_schedules(
    schedules: Mapping[str, ScheduleSettings], platforms: Mapping[str, str], sinks: Mapping[str, Any]
) -> None:
    """Checks the requests of all schedules. The kinds of recipes must be known before.

    Args:
        platforms: Connection → platform.

    Raises:
        ConfigError: A request is wrong. Every wrong field is named.
    """
    problems = [
        f"schedules.{name}.request.{problem}"
        for name, schedule in schedules.items()
        for problem in _problems(schedule, platforms, sinks)
    ]
    if problems:
        raise ConfigError(*problems)


def _problems(schedule: ScheduleSettings, platforms: Mapping[str, str], sinks: Mapping[str, Any]) -> list[str]:
    from export_worker.contract.schedule import ScheduleDefinition  # noqa: PLC0415 - few configurations have schedules

    try:
        request = ScheduleDefinition.model_validate(schedule.model_dump()).request_at(_SAMPLE)
    except InvalidRequestError as error:
        return [f"{problem.field}: {problem.message}" for problem in error.problems]
    except ValueError as error:
        return [str(error)]
    if request.idempotency_key is not None:
        return ["idempotency_key: must be left out; the time of the schedule is the key"]
    platform = platforms.get(request.connection)
    if platform is None:
        return [f"connection: {unknown_name('connection', request.connection, platforms)}"]
    if platform != request.platform:
        return [f"connection: {request.connection} is of platform {platform}, but {request.kind} needs another"]
    unknown = [sink for sink in request.notify or () if sink not in sinks]
    return [f"notify: {unknown_name('sink', sink, sinks)}" for sink in unknown]
