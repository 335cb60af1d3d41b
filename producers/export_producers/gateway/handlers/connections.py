"""The handlers of the routes that show, pause and resume connections."""

from collections.abc import Mapping
from datetime import datetime

from aiohttp import web

from export_producers.client import ExportQueue
from export_producers.filters import ExportFilter
from export_producers.gateway.callers.principals import PRINCIPAL, allowed_connections
from export_producers.gateway.context import CONTEXT, GatewayContext, json_response, query
from export_producers.gateway.documents.act_schemas import (
    ConnectionDetail,
    ConnectionLimits,
    Connections,
    ConnectionState,
    ConnectionUse,
    PauseOrder,
)
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.handlers.orders import read_order
from export_producers.gateway.problems import ProblemError
from export_producers.pauses import ConnectionPause, Pauses
from export_producers.queues.fan_out import Call
from export_producers.queues.queues import ExportQueues
from export_producers.reads.overview_document import ConnectionOverview
from export_worker.contract.names import unknown_name
from export_worker.contract.status import Phase
from export_worker.errors import ErrorCode

CONNECTION = "/v1/connections/{connection}"
TRANSFERS_MAX = 50
"""Transfers whose rates are added."""


async def connections(request: web.Request) -> web.Response:
    """Returns every connection with its pause."""
    query(request)
    context, allowed = request.app[CONTEXT], allowed_connections(request)
    found = await states(context.queue, allowed)
    missing = (await context.overview.get()).missing_queues
    return json_response(Connections(connections=found, missing_queues=missing))


async def states(queue: ExportQueues, allowed: frozenset[str] | None) -> list[ConnectionState]:
    """Returns the connections that a caller may see, sorted by name.

    Two round trips, and one more for their names if this gateway has no settings of connections.
    """
    known = await known_to(queue, allowed)
    pauses = (await queue.every(lambda each: Pauses(each.storage, known).all())).found
    found = {name: pause for each in pauses for name, pause in each.items()}
    return [ConnectionState(connection=name, platform=known[name], pause=found.get(name)) for name in sorted(known)]


async def known_to(queue: ExportQueues, allowed: frozenset[str] | None) -> dict[str, str]:
    """Returns connection → platform: the connections that a caller may see. Messages may name these."""
    every = await queue.known_connections()
    return {name: platform for name, platform in every.items() if allowed is None or name in allowed}


async def connection(request: web.Request) -> web.Response:
    """Returns everything about a connection."""
    query(request)
    name, allowed = request.match_info["connection"], allowed_connections(request)
    return json_response(await detail(request.app[CONTEXT], name, allowed))


async def detail(context: GatewayContext, name: str, allowed: frozenset[str] | None) -> ConnectionDetail:
    """Returns everything about a connection: one round trip, and two more while it has transfers.

    The overview, which all callers share, is read once a second.

    Raises:
        ProblemError: There is no such connection.
    """
    queue, overview = context.queue, await context.overview.get()
    known = await known_to(queue, allowed)
    state = overview.connections.get(name)
    if state is None or state.platform is None:
        state = (state or ConnectionOverview.unseen("")).model_copy(update={"platform": _platform(name, known)})
    configured = context.installation.connections.get(name)
    kinds = list(state.durations)
    facts = await queue.of_connection(name, lambda each: each.reads.connection(name, kinds))
    rate, bandwidth = (configured.requests_per_second, configured.mib_per_second) if configured else (None, None)
    transfers = state.phases[Phase.TRANSFERRING]
    return ConnectionDetail(
        connection=name,
        platform=str(state.platform),
        pause=facts.pause,
        address=configured and configured.address,
        limits=ConnectionLimits(max_in_flight=state.slots.limit, requests_per_second=rate, mib_per_second=bandwidth),
        use=ConnectionUse(
            slots=state.slots.used,
            rate_wait_s=facts.rate_wait_s,
            transfers=transfers,
            bytes_per_s=await queue.of_connection(name, _rate_of(name)) if transfers else 0.0,
        ),
        durations_s=facts.durations_s,
        state=state.model_copy(update={"pause": facts.pause}),
    )


def _rate_of(name: str) -> Call[float]:
    async def bytes_per_s(queue: ExportQueue) -> float:
        found = await queue.page(Phase.TRANSFERRING, TRANSFERS_MAX, where=ExportFilter(connection=name))
        return sum(status.progress.bytes_per_s or 0.0 for status in found.statuses)

    return bytes_per_s


async def pause(request: web.Request) -> web.Response:
    """Pauses a connection, or replaces its pause."""
    query(request)
    order = await read_order(request, PauseOrder)
    return json_response(await pause_connection(request, order.until, order.reason))


async def resume(request: web.Request) -> web.Response:
    """Ends the pause of a connection, if there is one."""
    query(request)
    return json_response(await resume_connection(request))


async def pause_connection(request: web.Request, until: datetime | None, reason: str | None) -> ConnectionState:
    """Pauses the connection of the path for the caller, and returns its state.

    Raises:
        ProblemError: There is no such connection.
        InvalidRequestError: The end is in the past, or the reason is too long.
    """
    name, known = await _known(request)

    async def pause(queue: ExportQueue) -> ConnectionPause:
        return await Pauses(queue.storage, known).pause(name, until=until, reason=reason, by=request[PRINCIPAL].name)

    paused = await request.app[CONTEXT].queue.of_connection(name, pause)
    stated = paused.model_dump(mode="json", include={"until", "reason"})
    request[ABOUT].detail |= {field: str(value) for field, value in stated.items() if value is not None}
    return ConnectionState(connection=name, platform=known[name], pause=paused)


async def resume_connection(request: web.Request) -> ConnectionState:
    """Ends the pause of the connection of the path, and returns its state.

    Raises:
        ProblemError: There is no such connection.
    """
    name, known = await _known(request)
    await request.app[CONTEXT].queue.of_connection(name, lambda queue: Pauses(queue.storage, known).resume(name))
    return ConnectionState(connection=name, platform=known[name], pause=None)


async def check_known(request: web.Request) -> None:
    """Checks that the connection of the path exists, for a caller who may not see the names of all others.

    Raises:
        ProblemError: There is no such connection. The message names only what the caller may use.
    """
    allowed = allowed_connections(request)
    if allowed is not None:
        _platform(request.match_info["connection"], await known_to(request.app[CONTEXT].queue, allowed))


async def _known(request: web.Request) -> tuple[str, Mapping[str, str]]:
    """Returns the connection of the path, and the platforms of all that the caller may see."""
    queue, name = request.app[CONTEXT].queue, request.match_info["connection"]
    known = await known_to(queue, allowed_connections(request))
    _platform(name, known)
    return name, known


def _platform(name: str, known: Mapping[str, str]) -> str:
    if name not in known:
        raise ProblemError(404, ErrorCode.NOT_FOUND, unknown_name("connection", name, known))
    return known[name]


ROUTES = [
    web.get("/v1/connections", connections),
    web.get(CONNECTION, connection),
    web.post(f"{CONNECTION}/pause", pause),
    web.post(f"{CONNECTION}/resume", resume),
]
