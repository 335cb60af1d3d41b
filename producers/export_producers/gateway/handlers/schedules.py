"""The handlers of the routes that show, pause, resume and run schedules."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from aiohttp import web

from export_producers.client import ExportQueue
from export_producers.gateway.callers.principals import PRINCIPAL, allowed_connections
from export_producers.gateway.context import CONTEXT, json_response, location, query
from export_producers.gateway.documents.schedule_documents import ScheduleList, SchedulePauseOrder, ScheduleRunOrder
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.handlers.orders import read_order
from export_producers.gateway.problems import ProblemError
from export_producers.schedules.operating import Schedules
from export_producers.schedules.states import ScheduleState
from export_worker.contract.names import unknown_name
from export_worker.contract.status import Accepted
from export_worker.errors import ErrorCode

SCHEDULE = "/v1/schedules/{schedule}"

Answer = TypeVar("Answer")


async def schedules(request: web.Request) -> web.Response:
    """Returns every schedule that the caller may see."""
    query(request)
    return json_response(await read_schedules(request))


async def schedule(request: web.Request) -> web.Response:
    """Returns one schedule."""
    query(request)
    _, state = await _found(request)
    return json_response(state)


async def pause(request: web.Request) -> web.Response:
    """Pauses a schedule, or replaces its pause."""
    query(request)
    order = await read_order(request, SchedulePauseOrder)
    return json_response(await pause_schedule(request, order.reason))


async def resume(request: web.Request) -> web.Response:
    """Ends the pause of a schedule, if there is one."""
    query(request)
    return json_response(await resume_schedule(request))


async def run(request: web.Request) -> web.Response:
    """Requests the export of a schedule."""
    query(request)
    order = await read_order(request, ScheduleRunOrder)
    accepted = await run_schedule(request, order.time)
    return json_response(accepted, status=202, headers=location(accepted.export_id))


async def read_schedules(request: web.Request) -> ScheduleList:
    """Returns the schedules of all queues that the caller may see, sorted by name."""
    allowed = allowed_connections(request)
    answers = await request.app[CONTEXT].queue.every(lambda queue: Schedules(queue).all())
    found = [state for states in answers.found for state in states if allowed is None or state.connection in allowed]
    return ScheduleList(schedules=sorted(found, key=lambda state: state.schedule), missing_queues=list(answers.missing))


async def pause_schedule(request: web.Request, reason: str | None) -> ScheduleState:
    """Pauses the schedule of the path for the caller.

    Raises:
        ProblemError: There is no such schedule, or several queues have one of this name.
        InvalidRequestError: The reason is too long.
    """
    name, state = await _found(request)
    if reason:
        request[ABOUT].detail["reason"] = reason
    by = request[PRINCIPAL].name
    return await _called(request, name, lambda each: each.pause(state.schedule, reason=reason or None, by=by))


async def resume_schedule(request: web.Request) -> ScheduleState:
    """Ends the pause of the schedule of the path. Raises the errors of `pause_schedule`."""
    name, state = await _found(request)
    return await _called(request, name, lambda each: each.resume(state.schedule))


async def run_schedule(request: web.Request, time: datetime | None = None) -> Accepted:
    """Requests the export of the schedule of the path. Raises the errors of `pause_schedule`."""
    name, state = await _found(request)
    accepted = await _called(request, name, lambda each: each.run(state.schedule, time))
    request[ABOUT].export_id = accepted.export_id
    return accepted


async def _called(request: web.Request, queue: str, call: Callable[[Schedules], Awaitable[Answer]]) -> Answer:
    async def asked(each: ExportQueue) -> Answer:
        return await call(Schedules(each))

    return await request.app[CONTEXT].queue.ask(queue, asked)


async def _found(request: web.Request) -> tuple[str, ScheduleState]:
    """Returns the queue of the schedule in the path, and its state. The activity then names it.

    Raises:
        ProblemError: The caller may see no such schedule, or several queues have one of this name.
    """
    wanted, allowed = request.match_info["schedule"], allowed_connections(request)
    answers = await request.app[CONTEXT].queue.every(lambda queue: Schedules(queue).all())
    visible = [
        (queue, state)
        for queue, states in answers.by_queue.items()
        for state in states
        if allowed is None or state.connection in allowed
    ]
    found = [each for each in visible if each[1].schedule == wanted]
    if not found:
        answers.require_all()
        names = [state.schedule for _, state in visible]
        message = unknown_name("schedule", wanted, names, none="no worker has one")
        raise ProblemError(404, ErrorCode.NOT_FOUND, message)
    if len(found) > 1:
        queues = ", ".join(queue for queue, _ in found)
        raise ProblemError(409, "several_queues", f"the queues {queues} have a schedule {wanted}; rename all but one")
    about = request[ABOUT]
    about.connection, about.detail = found[0][1].connection, about.detail | {"schedule": wanted}
    return found[0]


ROUTES = [
    web.get("/v1/schedules", schedules),
    web.get(SCHEDULE, schedule),
    web.post(f"{SCHEDULE}/pause", pause),
    web.post(f"{SCHEDULE}/resume", resume),
    web.post(f"{SCHEDULE}/run", run),
]
