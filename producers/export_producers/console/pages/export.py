"""The page Export, and what can be done there."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from export_producers.choices import Language
from export_producers.console.frame import page, parts
from export_producers.console.live import LIVE_PAGES, Parts, stream
from export_producers.console.numbers import recent_overview
from export_producers.console.pages.event_views import event_rows
from export_producers.console.pages.export_views import copy_command, last_beginning, transitions, usual_duration
from export_producers.console.pages.exports import PATH
from export_producers.console.pages.slowness import slowed
from export_producers.console.request_form.catalog_names import NAMES
from export_producers.console.views import asked_for, command, json_lines, row, starts
from export_producers.console.visitors.access import see_other
from export_producers.console.visitors.preferences import CHOICES, preferences_of
from export_producers.events.deliveries import read_deliveries
from export_producers.gateway.callers.principals import allowed_connections
from export_producers.gateway.context import CONTEXT, query
from export_producers.gateway.handlers.exports import STARTS
from export_producers.gateway.handlers.links import make_link
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_producers.reads.changes import Change
from export_worker.contract.status import Status
from export_worker.errors import ExportNotFoundError, InvalidRequestError

OBJECTS_MAX = 100
"""Files that a page shows. The manifest has all of them."""
ENTRIES_MAX = 200
"""Transitions that a page shows as JSON, the last ones. The API has all of them."""
EXPORT = r"/exports/{export_id:[0-9A-Za-z-]{1,64}}"


async def _one(request: web.Request, export_id: str, language: Language) -> dict[str, Any]:
    """Reads one export, and returns what its page shows and what changes while it is open.

    Four round trips, which pages share that are read at the same moment; two more for a transfer or deliveries.

    Raises:
        ExportNotFoundError: The export does not exist.
    """
    queues, now = request.app[CONTEXT].queue, request.app[CONTEXT].now
    details = (await request.app[LIVE_PAGES].details.get([export_id]))[export_id]
    if details is None:
        await queues.status(export_id)  # says why: it does not exist, or its queue cannot be reached
        raise ExportNotFoundError(export_id)
    status, entries = details.status, details.timeline
    overview = await recent_overview(request.app, allowed_connections(request))
    deliveries = (
        await queues.of_export(export_id, lambda queue: read_deliveries(queue.storage, export_id))
        if status.phase.terminal
        else []
    )
    connection = None if overview is None else overview.connections.get(status.connection)
    return {
        "row": row(status, now, slowed(status, connection, now), request.app[NAMES].of(status)),
        "export": status,
        # A step that is due and does not run waits for something else, which the reason names.
        "is_due_later": status.due_at is not None and status.due_at > now and not status.phase.terminal,
        "reason": details.reason.text(language),
        "entries": entries,
        "transitions": transitions(entries),
        "usual": usual_duration(status.eta, entries, now),
        "again": last_beginning(entries),
        "deliveries": event_rows(deliveries),
    }


async def live_one(request: web.Request) -> web.StreamResponse:
    """Follows one export."""
    query(request, *CHOICES)
    export_id, language = request.match_info["export_id"], preferences_of(request).lang

    async def read() -> Parts:
        return parts(language, "export", await _one(request, export_id, language))

    async def update(changes: Sequence[Change]) -> Parts:
        return await read() if any(change.export_id == export_id for change in changes) else {}

    return await stream(request, (export_id, language), read, update)


async def show_one(request: web.Request) -> web.Response:
    """Shows everything about one export."""
    export_id = request.match_info["export_id"]
    query(request, "done", *CHOICES)
    try:
        shown = await _one(request, export_id, preferences_of(request).lang)
    except ExportNotFoundError:
        return page(request, "not_found", status=404, title="gone.title", searched=export_id)
    status: Status = shown["export"]
    return page(
        request,
        "export",
        title="export.title",
        titled={"id": export_id[:8]},
        **shown,
        live_url=f"/console/live/exports/{export_id}",
        objects=[(each, copy_command(each.uri)) for each in status.objects[:OBJECTS_MAX]],
        timeline_lines=json_lines(shown["entries"][-ENTRIES_MAX:]),
        has_links=request.app[CONTEXT].options.presign,
        event_ids=list(dict.fromkeys(each.delivery.event_id for each in shown["deliveries"])),
        asked=asked_for(status),
        request_lines=json_lines(status.request or {}),
        starts=starts(status),
        command=command("explain", export_id),
        json_url=f"/v1/exports/{export_id}",
    )


async def cancel(request: web.Request) -> web.Response:
    """Requests the cancellation of an export."""
    export_id = request.match_info["export_id"]
    await request.app[CONTEXT].queue.cancel(export_id)
    return see_other(f"{PATH}/{export_id}?done=cancelled")


async def retry(request: web.Request) -> web.Response:
    """Restarts an export that has ended."""
    export_id, start = request.match_info["export_id"], str((await request.post()).get("from", ""))
    if start not in STARTS:
        raise invalid_parameter("from", f"must be one of {', '.join(STARTS)}")
    try:
        await request.app[CONTEXT].queue.retry(export_id, STARTS[start])
    except InvalidRequestError as error:
        raise ProblemError(409, "not_ended", str(error)) from None
    return see_other(f"{PATH}/{export_id}?done=retried")


async def link(request: web.Request) -> web.Response:
    """Shows a link to an object.

    A page with the link, and no redirect to it: the policy of the console forbids forms that lead to other sites.
    """
    query(request, *CHOICES)
    export_id = request.match_info["export_id"]
    return page(request, "link", title="link.title", export_id=export_id, link=await make_link(request))


ROUTES = [
    web.get(EXPORT, show_one),
    web.get(f"/live{EXPORT}", live_one, allow_head=False),
    web.post(f"{EXPORT}/cancel", cancel),
    web.post(f"{EXPORT}/retry", retry),
    web.post(f"{EXPORT}/objects/{{number}}/link", link),
]
