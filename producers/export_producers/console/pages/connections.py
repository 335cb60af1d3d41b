"""The pages Connections and Connection: state, limits and durations, what can be exported, and pauses by operators."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from aiohttp import web

from export_producers.choices import RESOURCES
from export_producers.console.charts import Bin, counted, ended_by_hour, histogram
from export_producers.console.frame import page, parts
from export_producers.console.live import Parts, stream, stream_state
from export_producers.console.pages.exports import PATH as EXPORTS_PATH
from export_producers.console.pages.overview import STATS
from export_producers.console.pages.overview_views import connection_rows, held, state_of
from export_producers.console.request_form.catalog_names import NAMES
from export_producers.console.views import Text, address, command, human_bytes, kind_key, said
from export_producers.console.visitors.access import see_other
from export_producers.console.visitors.preferences import CHOICES, preferences_of
from export_producers.gateway.callers.principals import allowed_connections
from export_producers.gateway.context import CONTEXT, query
from export_producers.gateway.documents.act_schemas import ConnectionDetail
from export_producers.gateway.handlers.connections import detail, pause_connection, resume_connection, states
from export_producers.gateway.handlers.exports import catalog_items
from export_producers.gateway.problems import invalid_parameter
from export_producers.moments import until
from export_producers.reads.overview_document import Breaker, Breakers, ConnectionOverview, Overview
from export_producers.reads.stats_document import StatsHour
from export_worker.contract.durations import BUCKETS_S
from export_worker.contract.printable import dumps
from export_worker.contract.status import Phase

PATH = "/console/connections"
CONNECTION = "/connections/{connection}"
ENDS = ("30m", "1h", "2h", "8h")
"""The ends of a pause that the form offers."""
ITEMS_MAX = 200
"""Items of a catalog that a page shows. The command line lists all of them."""
COLUMNS_MAX = 6
CELL_MAX_CHARS = 200


@dataclass(frozen=True, slots=True)
class KindDurations:
    """The durations of the last operations of one kind.

    Args:
        kind_key: The text that names the kind; None for a kind of another package.
    """

    kind: str
    kind_key: str | None
    median: timedelta
    bins: Sequence[Bin]


def breaker_states(breakers: Breakers, now: datetime) -> list[tuple[str, Text, bool]]:
    """Returns the circuit breakers: the key of its name, its state, and whether it is closed. Pure."""
    return [
        (f"breaker.{name}", *_breaker_state(getattr(breakers, name), now))
        for name in ("platform", "submit", "poll", "transfer")
    ]


def _breaker_state(breaker: Breaker | None, now: datetime) -> tuple[Text, bool]:
    if breaker is None:
        return said("breaker.closed"), True
    if breaker.until is None or breaker.until <= now:
        return said("breaker.counting", failures=breaker.failures), True
    return said("breaker.open", left=breaker.until - now, failures=breaker.failures), False


def kind_durations(found: ConnectionDetail) -> list[KindDurations]:
    """Returns the histograms of each kind. Pure."""
    return [
        KindDurations(
            kind=kind,
            kind_key=kind_key(kind),
            median=timedelta(seconds=found.state.durations[kind].p50),
            bins=histogram(counted(durations_s, BUCKETS_S), BUCKETS_S),
        )
        for kind, durations_s in found.durations_s.items()
        if durations_s
    ]


def codes_of(hours: Sequence[StatsHour], connection: str) -> list[tuple[str, int, str]]:
    """Returns the error codes of a day, the most frequent first: code, count, and the list of these exports. Pure."""
    counts: Counter[str] = Counter()
    for hour in hours:
        counts.update(hour.codes)
    where = {"phase": "failed", "connection": connection, "since": "24h"}
    return [(code, count, address(EXPORTS_PATH, where | {"error": code})) for code, count in counts.most_common()]


def with_configured(overview: Overview, known: Sequence[tuple[str, ConnectionOverview]]) -> Overview:
    """Returns the overview with the connections that no worker has announced. Pure."""
    return overview.model_copy(update={"connections": dict(sorted({**overview.connections, **dict(known)}.items()))})


async def _all(app: web.Application, allowed: frozenset[str] | None) -> dict[str, Any]:
    """Reads all connections. Two round trips, beside those that all pages share."""
    context, hours = app[CONTEXT], await app[STATS].get()
    overview = await context.overview.get()
    if allowed is not None:
        overview = overview.of_connections(allowed)
    configured = [
        (
            each.connection,
            (overview.connections.get(each.connection) or ConnectionOverview.unseen(each.platform)).model_copy(
                update={"pause": each.pause}
            ),
        )
        for each in await states(context.queue, allowed)
    ]
    return {"connections": connection_rows(with_configured(overview, configured), hours)}


async def show_list(request: web.Request) -> web.Response:
    """Shows all connections."""
    query(request, *CHOICES)
    return page(
        request,
        "connections",
        title="connections.title",
        command=command("connections", "list"),
        json_url="/v1/connections",
        live_url="/console/live/connections",
        **await _all(request.app, allowed_connections(request)),
    )


async def live_list(request: web.Request) -> web.StreamResponse:
    """Follows all connections."""
    return await stream_state(request, "connections", _all)


async def _one(app: web.Application, name: str, allowed: frozenset[str] | None) -> dict[str, Any]:
    """Reads one connection, and returns what changes while its page is open. See `detail` for its round trips."""
    found, now = await detail(app[CONTEXT], name, allowed), app[CONTEXT].now
    waiting = found.state.phases[Phase.QUEUED]
    return {
        "connection": found,
        "state": state_of(found.state, now),
        "pause": None if found.pause is None else held(name, found.pause, now, waiting),
        "breakers": breaker_states(found.state.breaker, now),
        "rate_wait": timedelta(seconds=found.use.rate_wait_s) if found.use.rate_wait_s else None,
        "reading": human_bytes(found.use.bytes_per_s),
    }


async def show_one(request: web.Request) -> web.Response:
    """Shows everything about one connection."""
    name = request.match_info["connection"]
    query(request, "done", *CHOICES)
    shown = await _one(request.app, name, allowed_connections(request))
    hours = (await request.app[STATS].get()).get(name, [])[-24:]
    return page(
        request,
        "connection",
        title="connections.title",
        **shown,
        url=f"{PATH}/{quote(name, safe='')}",
        exports_url=address(EXPORTS_PATH, {"connection": name}),
        ends=ENDS,
        resources=RESOURCES,
        kinds=kind_durations(shown["connection"]),
        whole=histogram([sum(counts) for counts in zip(*(hour.durations for hour in hours), strict=True)], BUCKETS_S)
        if hours
        else [],
        chart=ended_by_hour(hours),
        codes=codes_of(hours, name),
        live_url=f"/console/live/connections/{quote(name, safe='')}",
        command=command("connections", "list"),
        json_url=f"/v1/connections/{quote(name, safe='')}",
    )


async def live_one(request: web.Request) -> web.StreamResponse:
    """Follows one connection."""
    query(request, *CHOICES)
    app, name, language = request.app, request.match_info["connection"], preferences_of(request).lang
    allowed = allowed_connections(request)

    async def read() -> Parts:
        return parts(language, "connection", await _one(app, name, allowed))

    return await stream(request, ("connection", name, language), read, takes_turns=True)


async def pause(request: web.Request) -> web.Response:
    """Pauses a connection."""
    form = await request.post()
    stated, reason = str(form.get("until", "")).strip(), str(form.get("reason", "")).strip()
    try:
        end = until(stated, request.app[CONTEXT].now) if stated else None
    except ValueError:
        wrong = "must be a time from now (30m, 6h, 2d) or a date and time in the future (2026-11-22T03:00:00Z)"
        raise invalid_parameter("until", wrong) from None
    await pause_connection(request, end, reason or None)
    return _back(request, "paused")


async def resume(request: web.Request) -> web.Response:
    """Ends the pause of a connection."""
    await resume_connection(request)
    return _back(request, "resumed")


def _back(request: web.Request, done: str) -> web.Response:
    return see_other(f"{PATH}/{quote(request.match_info['connection'], safe='')}?done={done}")


async def catalog(request: web.Request) -> web.Response:
    """Shows what the platform of a connection has. The platform is called with each request."""
    name, given = request.match_info["connection"], query(request, "resource", "project", *CHOICES)
    resource, project = given.get("resource", ""), given.get("project", "").strip() or None
    items = await catalog_items(request, resource, project)
    request.app[NAMES].add((name, resource, project), items)
    options = [] if project is None else ["--project", project]
    return page(
        request,
        "catalog",
        title="catalog.title",
        titled={"name": name},
        name=name,
        resource=resource,
        total=len(items),
        items_max=ITEMS_MAX,
        columns=columns_of(items[:ITEMS_MAX]),
        items=items[:ITEMS_MAX],
        cell=cell,
        url=f"{PATH}/{quote(name, safe='')}",
        command=command("catalog", name, resource, *options),
        json_url=address(f"/v1/catalog/{quote(name, safe='')}/{resource}", {"project": project}),
    )


def columns_of(items: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the names of the fields that a table of a catalog shows, in the order of the platform. Pure."""
    names = dict.fromkeys(name for item in items for name in item)
    return list(names)[:COLUMNS_MAX]


def cell(item: dict[str, Any], name: str) -> str:
    """Returns a field of an item as text. Pure."""
    value = item.get(name)
    text = value if isinstance(value, str) else "" if value is None else dumps(value)
    return text if len(text) <= CELL_MAX_CHARS else text[:CELL_MAX_CHARS] + "…"


ROUTES = [
    web.get("/connections", show_list),
    web.get("/live/connections", live_list, allow_head=False),
    web.get(CONNECTION, show_one),
    web.get(f"/live{CONNECTION}", live_one, allow_head=False),
    web.get(f"{CONNECTION}/catalog", catalog),
    web.post(f"{CONNECTION}/pause", pause),
    web.post(f"{CONNECTION}/resume", resume),
]
