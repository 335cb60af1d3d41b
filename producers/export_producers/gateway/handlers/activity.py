"""Records who changes what, and serves `GET /v1/activity`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from export_producers.activity import CONDITIONS, Act, ActivityPage, ActivityRange
from export_producers.gateway.callers.principals import PRINCIPAL, Principal, Role
from export_producers.gateway.calls import call_of
from export_producers.gateway.context import CONTEXT, json_response, limit_of, next_link, query
from export_producers.gateway.documents.schemas import Activity
from export_producers.gateway.handlers.filters import moment_of
from export_producers.gateway.problems import ProblemError, code_of
from export_producers.queues.activities import add_act, read_activity
from export_worker.errors import ErrorCode, ExportNotFoundError, InvalidRequestError, ServiceUnreachableError

DETAIL_MAX_CHARS = 300
"""Limit of one text of a detail, such as the reason that a caller gives."""
DONE = "done"
UNCLEAR = {ErrorCode.INTERNAL_ERROR, ErrorCode.SERVICE_UNREACHABLE}
"""The codes of calls that failed while or after they changed something."""

FILTERS = (*CONDITIONS, "since", "until")
"""The parameters that select acts."""

_log = structlog.get_logger(__name__)


@dataclass
class About:
    """What a request acts on. Handlers add what they know, and the middleware records it.

    Args:
        detail: Further facts, for people. Texts are cut to 300 characters.
        is_change: False for a dry run, which is not recorded.
    """

    export_id: str | None = None
    connection: str | None = None
    detail: dict[str, str] = field(default_factory=dict)
    is_change: bool = True


ABOUT = web.RequestKey("about", About)


@web.middleware
async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Adds each call that has changed something, or may have, to the activity.

    Refused calls are only logged. Otherwise a wrong client could displace all acts of the others within minutes.
    """
    request[ABOUT] = About()
    principal, call = request.get(PRINCIPAL), call_of(request)
    if principal is None or call is None or call.action is None:
        return await handler(request)
    try:
        response = await handler(request)
    except Exception as error:
        if (code := code_of(error)) in UNCLEAR:
            await _add(request, principal, call.action, code)
        raise
    await _add(request, principal, call.action, DONE)
    return response


async def _add(request: web.Request, principal: Principal, action: str, outcome: str) -> None:
    about, queues = request[ABOUT], request.app[CONTEXT].queue
    if not about.is_change:
        return
    act = Act(
        who=principal.name,
        kind=principal.kind,
        role=principal.role,
        address=request.app[CONTEXT].callers.address_of(request.headers, request.remote),
        action=action,
        export_id=about.export_id,
        connection=about.connection,
        outcome=outcome,
        detail={name: text[:DETAIL_MAX_CHARS] for name, text in about.detail.items()},
    )
    try:
        if act.export_id is not None and act.connection is None:
            act = act.model_copy(update={"connection": (await queues.status(act.export_id)).connection})
        await add_act(queues, act)
    except (ServiceUnreachableError, ExportNotFoundError) as error:
        # The act has happened. If the caller got an error, it would be repeated.
        _log.warning("activity.lost", error=str(error), **act.model_dump(exclude={"detail"}))


async def activity(request: web.Request) -> web.Response:
    """Returns one page of the activity. Operators see all acts on their connections, others only their own acts."""
    parameters = query(request, *FILTERS, "limit", "cursor")
    page = await read_acts(request, parameters, limit_of(parameters.get("limit", "50")))
    answer = Activity(entries=page.entries, next_cursor=page.cursor, missing_queues=list(page.missing))
    return json_response(answer, headers=next_link(request, page.cursor))


async def read_acts(request: web.Request, parameters: Mapping[str, str], limit: int) -> ActivityPage:
    """Returns the acts that the caller may see and that match, newest first, in one round trip.

    Args:
        parameters: Values of `FILTERS`, and the cursor.

    Raises:
        ProblemError: A value is invalid.
    """
    principal = request[PRINCIPAL]
    part = ActivityRange(parameters.get("cursor"), moment_of(parameters, "since"), moment_of(parameters, "until"))
    conditions = {name: parameters[name] for name in CONDITIONS if name in parameters}

    def is_wanted(act: Act) -> bool:
        return is_visible(act, principal) and act.meets(conditions)

    try:
        return await read_activity(request.app[CONTEXT].queue, is_wanted, part, limit)
    except InvalidRequestError as error:
        raise ProblemError(400, error.code, str(error), errors=error.problems) from None


def is_visible(act: Act, principal: Principal) -> bool:
    """Returns whether a caller may see an act."""
    if (act.kind, act.who) == (principal.kind, principal.name):
        return True
    if not principal.role.includes(Role.OPERATOR):
        return False
    return principal.connections is None or (act.connection is not None and principal.may_use(act.connection))


ROUTES = [web.get("/v1/activity", activity)]
