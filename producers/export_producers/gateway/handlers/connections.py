"""The handlers of the routes that show, pause and resume connections."""

from aiohttp import web

from export_producers.gateway.callers.principals import PRINCIPAL, allowed_connections
from export_producers.gateway.context import CONTEXT, json_response, query
from export_producers.gateway.documents.act_schemas import Connections, ConnectionState, PauseOrder
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.handlers.orders import read_order
from export_producers.gateway.problems import ProblemError
from export_producers.pauses import ConnectionPause, Pauses
from export_worker.contract.names import unknown_name
from export_worker.errors import ErrorCode

CONNECTION = "/v1/connections/{connection}"


async def connections(request: web.Request) -> web.Response:
    """Returns every connection with its pause."""
    query(request)
    every, allowed = await request.app[CONTEXT].queue.known_connections(), allowed_connections(request)
    known = {name: platform for name, platform in every.items() if allowed is None or name in allowed}
    found = await Pauses(request.app[CONTEXT].queue.storage, known).all()
    states = [ConnectionState(connection=name, platform=known[name], pause=found.get(name)) for name in sorted(known)]
    return json_response(Connections(connections=states))


async def pause(request: web.Request) -> web.Response:
    """Pauses a connection, or replaces its pause."""
    query(request)
    name, platform, pauses = await _pauses(request)
    order = await read_order(request, PauseOrder)
    paused = await pauses.pause(name, until=order.until, reason=order.reason, by=request[PRINCIPAL].name)
    request[ABOUT].detail |= {
        field: str(value) for field, value in order.model_dump(mode="json").items() if value is not None
    }
    return _state(name, platform, paused)


async def resume(request: web.Request) -> web.Response:
    """Ends the pause of a connection, if there is one."""
    query(request)
    name, platform, pauses = await _pauses(request)
    await pauses.resume(name)
    return _state(name, platform, None)


async def _pauses(request: web.Request) -> tuple[str, str, Pauses]:
    """Returns the connection of the path, its platform, and the pauses.

    Raises:
        ProblemError: There is no such connection.
    """
    queue, name = request.app[CONTEXT].queue, request.match_info["connection"]
    known = await queue.known_connections()
    if name not in known:
        raise ProblemError(404, ErrorCode.NOT_FOUND, unknown_name("connection", name, known))
    return name, known[name], Pauses(queue.storage, known)


def _state(name: str, platform: str, paused: ConnectionPause | None) -> web.Response:
    return json_response(ConnectionState(connection=name, platform=platform, pause=paused))


ROUTES = [
    web.get("/v1/connections", connections),
    web.post(f"{CONNECTION}/pause", pause),
    web.post(f"{CONNECTION}/resume", resume),
]
