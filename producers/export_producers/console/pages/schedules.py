"""The page Schedules: when each fires next, what became of its last time, and its pause by an operator."""

from dataclasses import dataclass
from urllib.parse import quote

from aiohttp import web

from export_producers.console.frame import page
from export_producers.console.pages.exports import PATH as EXPORTS_PATH
from export_producers.console.views import address, command, kind_key
from export_producers.console.visitors.access import see_other
from export_producers.console.visitors.preferences import CHOICES
from export_producers.gateway.context import query
from export_producers.gateway.handlers.schedules import pause_schedule, read_schedules, resume_schedule, run_schedule
from export_producers.schedules.states import ScheduleState
from export_worker.contract.schedule import requester_of

PATH = "/console/schedules"
SCHEDULE = "/schedules/{schedule}"


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule.

    Args:
        kind_key: The text that names the kind of its export; None for a kind of another package.
        url: The beginning of the addresses of its forms.
        exports_url: The list of its exports.
        state: The name of its state in the texts.
    """

    schedule: ScheduleState
    kind_key: str | None
    url: str
    exports_url: str
    state: str

    @property
    def is_well(self) -> bool:
        """Whether nothing must be done."""
        return self.state in {"waiting", "skipped"}


def schedule_row(state: ScheduleState) -> ScheduleRow:
    """Returns the row of a schedule. Pure."""
    return ScheduleRow(
        schedule=state,
        kind_key=kind_key(state.kind),
        url=f"{PATH}/{quote(state.schedule, safe='')}",
        exports_url=address(EXPORTS_PATH, {"requested_by": requester_of(state.schedule)}),
        state=_state(state),
    )


def _state(state: ScheduleState) -> str:
    if state.pause is not None:
        return "paused"
    if not state.has_worker:
        return "without_worker"
    return "waiting" if state.last is None or state.last.outcome == "fired" else state.last.outcome


async def show(request: web.Request) -> web.Response:
    """Shows all schedules. Two round trips."""
    query(request, "done", *CHOICES)
    found = await read_schedules(request)
    return page(
        request,
        "schedules",
        title="schedules.title",
        rows=[schedule_row(state) for state in found.schedules],
        command=command("schedules", "list"),
        json_url="/v1/schedules",
    )


async def pause(request: web.Request) -> web.Response:
    """Pauses a schedule."""
    reason = str((await request.post()).get("reason", "")).strip()
    await pause_schedule(request, reason or None)
    return see_other(f"{PATH}?done=schedule_paused")


async def resume(request: web.Request) -> web.Response:
    """Ends the pause of a schedule."""
    await resume_schedule(request)
    return see_other(f"{PATH}?done=schedule_resumed")


async def run(request: web.Request) -> web.Response:
    """Requests the export of a schedule, and shows the export."""
    accepted = await run_schedule(request)
    return see_other(f"{EXPORTS_PATH}/{accepted.export_id}?done=requested")


ROUTES = [
    web.get("/schedules", show),
    web.post(f"{SCHEDULE}/pause", pause),
    web.post(f"{SCHEDULE}/resume", resume),
    web.post(f"{SCHEDULE}/run", run),
]
