"""The page Exports: a filtered list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from aiohttp import web

from export_producers.bulk.orders import Action
from export_producers.choices import OPEN, STATES
from export_producers.console.frame import page, rendered
from export_producers.console.live import LIVE_PAGES, Parts, stream
from export_producers.console.numbers import OVERVIEW, phase_counts, recent_overview
from export_producers.console.pages.live_rows import PAGE_ROWS, LiveRows, part_of
from export_producers.console.pages.slowness import slowed
from export_producers.console.request_form.catalog_names import NAMES, CatalogNames
from export_producers.console.views import (
    SYMBOLS,
    Row,
    address,
    command,
    row,
)
from export_producers.console.visitors.access import VISITOR, see_other
from export_producers.console.visitors.preferences import CHOICES, preferences_of
from export_producers.filters import ExportFilter
from export_producers.gateway.callers.principals import PRINCIPAL, Principal, allowed_connections
from export_producers.gateway.context import CONTEXT, query
from export_producers.gateway.handlers.filters import FILTERS, export_filter
from export_producers.gateway.problems import ProblemError
from export_producers.reads.overview_document import Overview
from export_worker.contract.kind_names import kind_names
from export_worker.contract.status import Phase, Status
from export_worker.errors import ErrorCode, InvalidRequestError

SINCE = ("1h", "24h", "7d")
"""The ages that the filter offers."""
OPTIONS = {"q": "--search", "requested_by": "--requested-by"}
"""The options of the command `list` that have other names than the filters."""
PATH = "/console/exports"
EXPORT = r"/exports/{export_id:[0-9A-Za-z-]{1,64}}"


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

    def view(self, values: Mapping[str, str]) -> str:
        """Returns the address of the list with other values."""
        return address(PATH, values)

    @property
    def text(self) -> str:
        """The filter as people read it, e.g. `phase=failed, since=1h`."""
        return ", ".join(f"{name}={value}" for name, value in self.values.items())

    @property
    def wider(self) -> str | None:
        """The next longer of the ages that the page offers; None if there is none."""
        since = self.values.get("since")
        return dict(pairwise(SINCE)).get(since) if since else None

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

    Two round trips, three with a state, one for the login, and one in ten seconds for the overview of all pages.
    """
    queue, now, wanted = request.app[CONTEXT].queue, request.app[CONTEXT].now, Query.of(request)
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
        rows=rows_of(found.statuses, request.get(OVERVIEW), now, request.app[NAMES]),
        query=wanted,
        presets=presets(request[PRINCIPAL]),
        phases=[(phase, SYMBOLS[phase]) for phase in Phase],
        counts=phase_counts(request.get(OVERVIEW), wanted.values),
        choices={
            "connection": connections_of(request.get(OVERVIEW), allowed),
            "kind": kind_names(),
            "error": sorted(ErrorCode),
            "since": SINCE,
            "state": STATES,
        },
        may_act=request[VISITOR].may_act,
        actions=actions(wanted.values.get("phase") or (OPEN if "state" in wanted.values else None)),
        total=found.total,
        searched_until=found.searched_until,
        archive=found.archive,
        live_url=wanted.live_url,
        older=None if found.cursor is None else wanted.link(cursor=found.cursor),
        command=wanted.command,
        json_url=wanted.json_url,
    )


async def live_list(request: web.Request) -> web.StreamResponse:
    """Follows one page of exports."""
    context, language, wanted = request.app[CONTEXT], preferences_of(request).lang, Query.of(request)
    allowed, may_act = allowed_connections(request), request[VISITOR].may_act

    async def render(statuses: Sequence[Status]) -> Parts:
        rows = rows_of(statuses, await recent_overview(request.app, allowed), context.now, request.app[NAMES])
        return {part_of(each.status): rendered(language, "row", each=each, may_act=may_act) for each in rows}

    rows = LiveRows(
        context.queue,
        request.app[LIVE_PAGES].statuses,
        wanted.where(allowed),
        wanted.cursor,
        render=render,
        language=language,
    )
    return await stream(request, (wanted.live_url, language, may_act), rows.read, rows.update)


def presets(principal: Principal) -> list[tuple[str, Mapping[str, str]]]:
    """Returns the views that every visitor has: the keys of their names, and their filters. Pure."""
    mine = [("exports.mine", {"requested_by": principal.name})] if principal.kind != "anonymous" else []
    return [
        ("exports.open", {"phase": OPEN}),
        ("exports.failed_today", {"phase": "failed", "since": "24h"}),
        ("exports.slow", {"state": "slow"}),
        ("exports.waiting", {"state": "waiting"}),
        *mine,
    ]


def rows_of(statuses: Sequence[Status], overview: Overview | None, now: datetime, names: CatalogNames) -> list[Row]:
    """Returns the rows of a list.

    Args:
        overview: None if it is not known what slows the exports.
    """
    connections = {} if overview is None else overview.connections
    return [row(each, now, slowed(each, connections.get(each.connection), now), names.of(each)) for each in statuses]


def connections_of(overview: Overview | None, allowed: frozenset[str] | None) -> list[str]:
    """Returns the connections by which a visitor can filter. Pure."""
    return sorted((allowed or ()) if overview is None else overview.connections)


def actions(phase: str | None) -> Sequence[Action]:
    """Returns what can be done to many exports of a phase. Pure."""
    if phase is None:
        return ("retry", "cancel")
    return ("retry",) if phase != OPEN and Phase(phase).terminal else ("cancel",)


ROUTES = [
    web.get("/exports", show_list),
    web.get("/live/exports", live_list, allow_head=False),
]
