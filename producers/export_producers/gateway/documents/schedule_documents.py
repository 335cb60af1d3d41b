"""The part of the OpenAPI document about schedules. Needs only pydantic."""

from typing import Annotated

from pydantic import BaseModel, Field

from export_producers.gateway.documents.act_documents import BODY_PROBLEMS, Act
from export_producers.pauses import REASON_MAX_CHARS
from export_producers.schedules.states import ScheduleState
from export_worker.contract.model import Model, StatedTime
from export_worker.contract.status import Accepted


class SchedulePauseOrder(Model):
    """Why a schedule is paused."""

    reason: Annotated[str, Field(max_length=REASON_MAX_CHARS)] | None = None
    """One line for people."""


class ScheduleRunOrder(Model):
    """For which time a schedule is run."""

    time: StatedTime | None = None
    """The time whose dates the request has; by default, now."""


class ScheduleList(Model):
    """The schedules of the workers, by name."""

    schedules: list[ScheduleState]
    """Every schedule whose connection the caller may use, sorted by name."""
    missing_queues: list[str] = []
    """The queues whose part is missing, because their Redis cannot be reached. Only of a gateway with several."""


TAGS = {"schedules": "Watch the schedules of the workers, pause them, and run them now."}
ORDERS: tuple[type[BaseModel], ...] = (SchedulePauseOrder, ScheduleRunOrder)
"""The models of bodies."""
ANSWERS: tuple[type[BaseModel], ...] = (ScheduleList, ScheduleState)
"""The models of answers."""

_SCHEDULE = {"schedule": "The name of a schedule in the configuration of the workers."}

CALLS = (
    Act(
        path="/v1/schedules",
        method="get",
        name="schedules",
        tag="schedules",
        about="List schedules.",
        description="Workers announce the schedules of their configuration every five minutes. One that no worker has "
        "announced for a week is forgotten.",
        answers={200: ("The schedules.", ScheduleList)},
    ),
    Act(
        path="/v1/schedules/{schedule}",
        method="get",
        name="schedule",
        tag="schedules",
        about="Get a schedule.",
        description="Its definition, its last and its next time.",
        answers={200: ("The schedule.", ScheduleState)},
        problems=(404, 409),
        segments=_SCHEDULE,
    ),
    Act(
        path="/v1/schedules/{schedule}/pause",
        name="pause_schedule",
        tag="schedules",
        about="Pause a schedule.",
        description="Its times pass without exports until it is resumed. A second call replaces the pause.",
        answers={200: ("The schedule is paused.", ScheduleState)},
        problems=(404, 409, *BODY_PROBLEMS),
        order=SchedulePauseOrder,
        segments=_SCHEDULE,
    ),
    Act(
        path="/v1/schedules/{schedule}/resume",
        name="resume_schedule",
        tag="schedules",
        about="End the pause of a schedule.",
        description="The times of the pause are not caught up. A schedule that is not paused is not changed.",
        answers={200: ("The schedule is not paused.", ScheduleState)},
        problems=(404, 409),
        segments=_SCHEDULE,
    ),
    Act(
        path="/v1/schedules/{schedule}/run",
        name="run_schedule",
        tag="schedules",
        about="Run a schedule now.",
        description="The export is requested also while the schedule is paused, or while the export before is open. "
        "Each call requests another export.",
        answers={202: ("The export is enqueued.", Accepted)},
        problems=(404, 409, *BODY_PROBLEMS),
        order=ScheduleRunOrder,
        segments=_SCHEDULE,
    ),
)
"""Every operation."""
DESCRIPTIONS = {call.name: call.description for call in CALLS}
