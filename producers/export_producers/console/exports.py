"""The pages Exports and Export, and what can be done there."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from export_producers.console.access import see_other
from export_producers.console.frame import page
from export_producers.console.preferences import CHOICES
from export_producers.console.views import (
    SYMBOLS,
    address,
    asked_for,
    command,
    json_lines,
    row,
    since_of,
    starts,
    transitions,
)
from export_producers.filters import ExportFilter
from export_producers.gateway.context import CONTEXT, query
from export_producers.gateway.exports import STARTS
from export_producers.gateway.principals import PRINCIPAL, allowed_connections
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_worker.contract.kind_names import kind_names
from export_worker.contract.status import Phase
from export_worker.errors import ErrorCode, ExportNotFoundError, InvalidRequestError

PAGE_ROWS = 50
OBJECTS_MAX = 100
"""Files that a page shows. The manifest has all of them."""
SINCE = ("1h", "24h", "7d")
"""The ages that the filter offers."""
FILTERS = ("phase", "connection", "kind", "error", "since", "q")
API_FILTERS = {"phase"}
"""The filters that `/v1/exports` has."""
PATH = "/console/exports"
EXPORT = r"/exports/{export_id:[0-9A-Za-z-]{1,64}}"
DONE = ("cancelled", "retried")


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

    def where(self, now: datetime, allowed: frozenset[str] | None) -> ExportFilter:
        """Returns the filter.

        Args:
            allowed: The connections that the visitor may see; None for all.

        Raises:
            ProblemError: A value is invalid.
        """
        phase, since = self.values.get("phase"), self.values.get("since")
        if phase is not None and phase not in set(Phase):
            raise invalid_parameter("phase", f"must be one of {', '.join(Phase)}")
        try:
            moment = None if since is None else since_of(since, now)
        except (ValueError, OverflowError):
            raise invalid_parameter("since", "must be a date and time, or a time ago such as 24h") from None
        return ExportFilter(
            phase=Phase(phase) if phase else None,
            connection=self.values.get("connection"),
            kind=self.values.get("kind"),
            error=self.values.get("error"),
            since=moment,
            connections=allowed,
        )

    def link(self, **change: str | None) -> str:
        """Returns the address of the list with some values changed, from its first page on."""
        return address(PATH, {**self.values, **change})

    @property
    def command(self) -> str:
        """The same list on the command line."""
        options = [word for name in FILTERS if name in self.values for word in (f"--{name}", self.values[name])]
        return command("list", *options)

    @property
    def json_url(self) -> str | None:
        """The same list in the API; None if the API does not have these filters."""
        query = {**self.values, "cursor": self.cursor, "limit": str(PAGE_ROWS)}
        return address("/v1/exports", query) if self.values.keys() <= API_FILTERS else None


async def show_list(request: web.Request) -> web.Response:
    """Shows one page of exports, newest first. Two round trips, and one for the login."""
    queue, now, wanted = request.app[CONTEXT].queue, datetime.now(UTC), Query.of(request)
    if "q" in wanted.values:
        return await _search(request, wanted)
    allowed = allowed_connections(request)
    try:
        found = await queue.page(limit=PAGE_ROWS, cursor=wanted.cursor, where=wanted.where(now, allowed))
    except InvalidRequestError as error:
        raise ProblemError(400, error.code, str(error), errors=error.problems) from None
    return page(
        request,
        "exports",
        title="exports.title",
        rows=[row(status, now) for status in found.statuses],
        query=wanted,
        phases=[(phase, SYMBOLS[phase]) for phase in Phase],
        choices={
            "connection": sorted(allowed if allowed is not None else await queue.known_connections()),
            "kind": kind_names(),
            "error": sorted(ErrorCode),
            "since": SINCE,
        },
        total=found.total,
        searched_until=found.searched_until,
        older=None if found.cursor is None else wanted.link(cursor=found.cursor),
        command=wanted.command,
        json_url=wanted.json_url,
    )


async def _search(request: web.Request, wanted: Query) -> web.Response:
    """Shows the export with the id that was searched for."""
    export_id = wanted.values["q"]
    try:
        connection: str | None = (await request.app[CONTEXT].queue.status(export_id)).connection
    except ExportNotFoundError:
        connection = None
    if connection is None or not request[PRINCIPAL].may_use(connection):
        return page(request, "not_found", status=404, title="gone.title", searched=export_id)
    return see_other(f"{PATH}/{export_id}")


async def show_one(request: web.Request) -> web.Response:
    """Shows everything about one export."""
    queue, export_id = request.app[CONTEXT].queue, request.match_info["export_id"]
    done = query(request, "done", *CHOICES).get("done")
    try:
        status = await queue.status(export_id)
        reason, entries = await asyncio.gather(queue.explanation(export_id), queue.timeline(export_id))
    except ExportNotFoundError:
        return page(request, "not_found", status=404, title="gone.title", searched=export_id)
    now = datetime.now(UTC)
    return page(
        request,
        "export",
        title="export.title",
        titled={"id": export_id[:8]},
        row=row(status, now),
        export=status,
        reason=reason,
        done=done if done in DONE else None,
        objects_max=OBJECTS_MAX,
        asked=asked_for(status),
        request_lines=json_lines(status.request or {}),
        transitions=transitions(entries),
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
    web.get(EXPORT, show_one),
    web.post(f"{EXPORT}/cancel", cancel),
    web.post(f"{EXPORT}/retry", retry),
]
