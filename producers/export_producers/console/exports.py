"""The pages Exports and Export, and what can be done there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from export_producers.bulk.orders import Action
from export_producers.client import ExportQueue
from export_producers.console.access import VISITOR, see_other
from export_producers.console.event_views import event_rows
from export_producers.console.frame import page, parts
from export_producers.console.live import LIVE_PAGES, Parts, stream
from export_producers.console.live_rows import PAGE_ROWS, LiveRows
from export_producers.console.preferences import CHOICES, preferences_of
from export_producers.console.views import (
    SYMBOLS,
    address,
    asked_for,
    command,
    json_lines,
    row,
    starts,
    transitions,
)
from export_producers.deliveries import read_deliveries
from export_producers.filters import ExportFilter
from export_producers.gateway.callers.principals import allowed_connections
from export_producers.gateway.context import CONTEXT, query
from export_producers.gateway.handlers.exports import STARTS
from export_producers.gateway.handlers.filters import FILTERS, export_filter
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_producers.reads.changes import Change
from export_producers.reads.shared import SharedRead
from export_worker.contract.kind_names import kind_names
from export_worker.contract.status import Phase, Status
from export_worker.errors import ErrorCode, ExportNotFoundError, InvalidRequestError

OBJECTS_MAX = 100
"""Files that a page shows. The manifest has all of them."""
SINCE = ("1h", "24h", "7d")
"""The ages that the filter offers."""
OPTIONS = {"q": "--search", "requested_by": "--requested-by"}
"""The options of the command `list` that have other names than the filters."""
PATH = "/console/exports"
EXPORT = r"/exports/{export_id:[0-9A-Za-z-]{1,64}}"
DONE = ("again", "cancelled", "delivering", "known", "requested", "retried")
CONNECTIONS_KEPT_S = 60.0
"""The filter of connections offers a new one after this time at the latest."""
CONNECTIONS = web.AppKey("connections", SharedRead[Mapping[str, str]])


def shared_connections(queue: ExportQueue) -> SharedRead[Mapping[str, str]]:
    """Returns the read of the known connections, which all visitors share."""
    return SharedRead(queue.known_connections, CONNECTIONS_KEPT_S)


@dataclass(frozen=True, slots=True)
class Query:
    """The filter and the position of a list, as its address has them. Empty values count as missing."""

    values: dict[str, str]
    cursor: str | None

    @classmethod
    def of(cls, request: web.Request) -> "Query":
        """Reads the query string."""
        given = query(request, *FILTERS, "cursor", *CHOICES)
        return cls({name: given[name].strip() for name in FILTERS if given.get(name, "").strip()}, given.get("cursor"))

    def where(self, allowed: frozenset[str] | None) -> ExportFilter:
        """Returns the filter.

        Args:
            allowed: The connections that the visitor may see; None for all.

        Raises:
            ProblemError: A value is invalid.
        """
        return export_filter(self.values, allowed)

    def link(self, **change: str | None) -> str:
        """Returns the address of the list with some values changed, from its first page on."""
        return address(PATH, {**self.values, **change})

    @property
    def live_url(self) -> str:
        """The address of the stream of this list."""
        return address("/console/live/exports", {**self.values, "cursor": self.cursor})

    @property
    def command(self) -> str:
        """The same list on the command line."""
        options = [word for name, value in self.values.items() for word in (OPTIONS.get(name, f"--{name}"), value)]
        return command("list", *options)

    @property
    def json_url(self) -> str:
        """The same list in the API."""
        return address("/v1/exports", {**self.values, "cursor": self.cursor, "limit": str(PAGE_ROWS)})


async def show_list(request: web.Request) -> web.Response:
    """Shows one page of exports, newest first, or the only export that a search finds.

    Two round trips, one for the login, and one a minute for the names of all connections.
    """
    queue, now, wanted = request.app[CONTEXT].queue, datetime.now(UTC), Query.of(request)
    allowed = allowed_connections(request)
    try:
        found = await queue.page(limit=PAGE_ROWS, cursor=wanted.cursor, where=wanted.where(allowed))
    except InvalidRequestError as error:
        raise ProblemError(400, error.code, str(error), errors=error.problems) from None
    if "q" in wanted.values and wanted.cursor is None and found.cursor is None and len(found.statuses) == 1:
        return see_other(f"{PATH}/{found.statuses[0].export_id}")
    return page(
        request,
        "exports",
        title="exports.title",
        rows=[row(status, now) for status in found.statuses],
        query=wanted,
        phases=[(phase, SYMBOLS[phase]) for phase in Phase],
        choices={
            "connection": sorted(allowed if allowed is not None else await request.app[CONNECTIONS].get()),
            "kind": kind_names(),
            "error": sorted(ErrorCode),
            "since": SINCE,
        },
        may_act=request[VISITOR].may_act,
        actions=actions(wanted.values.get("phase")),
        total=found.total,
        searched_until=found.searched_until,
        live_url=wanted.live_url,
        older=None if found.cursor is None else wanted.link(cursor=found.cursor),
        command=wanted.command,
        json_url=wanted.json_url,
    )


async def live_list(request: web.Request) -> web.StreamResponse:
    """Follows one page of exports."""
    queue, language, wanted = request.app[CONTEXT].queue, preferences_of(request).lang, Query.of(request)
    allowed, may_act = allowed_connections(request), request[VISITOR].may_act
    rows = LiveRows(queue, request.app[LIVE_PAGES].statuses, wanted.where(allowed), wanted.cursor, language, may_act)
    return await stream(request, (wanted.live_url, language, allowed, may_act), rows.read, rows.update)


def actions(phase: str | None) -> Sequence[Action]:
    """Returns what can be done to many exports of a phase. Pure."""
    if phase is None:
        return ("retry", "cancel")
    return ("retry",) if Phase(phase).terminal else ("cancel",)


async def _one(request: web.Request, export_id: str) -> dict[str, Any]:
    """Reads one export, and returns what its page shows and what changes while it is open.

    Four round trips, six for a transfer. Pages that are read at the same moment share them.

    Raises:
        ExportNotFoundError: The export does not exist.
    """
    details = (await request.app[LIVE_PAGES].details.get([export_id]))[export_id]
    if details is None:
        raise ExportNotFoundError(export_id)
    storage, is_ended = request.app[CONTEXT].queue.storage, details.status.phase.terminal
    return {
        "row": row(details.status, datetime.now(UTC)),
        "export": details.status,
        "reason": details.reason.text(preferences_of(request).lang),
        "transitions": transitions(details.timeline),
        "deliveries": event_rows(await read_deliveries(storage, export_id) if is_ended else []),
    }


async def live_one(request: web.Request) -> web.StreamResponse:
    """Follows one export."""
    query(request, *CHOICES)
    export_id, language = request.match_info["export_id"], preferences_of(request).lang

    async def read() -> Parts:
        return parts(language, "export", await _one(request, export_id))

    async def update(changes: Sequence[Change]) -> Parts:
        return await read() if any(change.export_id == export_id for change in changes) else {}

    return await stream(request, (export_id, language), read, update)


async def show_one(request: web.Request) -> web.Response:
    """Shows everything about one export."""
    export_id = request.match_info["export_id"]
    done = query(request, "done", *CHOICES).get("done")
    try:
        shown = await _one(request, export_id)
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
        done=done if done in DONE else None,
        objects_max=OBJECTS_MAX,
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


ROUTES = [
    web.get("/exports", show_list),
    web.get("/live/exports", live_list, allow_head=False),
    web.get(EXPORT, show_one),
    web.get(f"/live{EXPORT}", live_one, allow_head=False),
    web.post(f"{EXPORT}/cancel", cancel),
    web.post(f"{EXPORT}/retry", retry),
]
