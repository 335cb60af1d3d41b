"""The handlers of the routes that list completion events, and deliver them now."""

from aiohttp import web

from export_producers.gateway.context import CONTEXT, json_response, limit_of, query
from export_producers.gateway.documents.act_schemas import Delivering, Events
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_producers.sink_events import STATES, deliver_now, read_events, sink_types
from export_worker.contract.names import unknown_name
from export_worker.errors import ErrorCode


async def events(request: web.Request) -> web.Response:
    """Returns the events that sinks have not taken, in one state."""
    parameters = query(request, "sink", "state", "limit")
    limit = limit_of(parameters.get("limit", "50"))
    wanted = parameters.get("state", "pending")
    state = next((each for each in STATES if each == wanted), None)
    if state is None:
        raise invalid_parameter("state", f"must be one of {', '.join(STATES)}")
    storage = request.app[CONTEXT].queue.storage
    types, sink = await sink_types(storage), parameters.get("sink")
    if sink is not None and sink not in types:
        raise invalid_parameter("sink", unknown_name("sink", sink, types))
    found, total = await read_events(storage, types if sink is None else {sink: types[sink]}, state, limit)
    return json_response(Events(deliveries=found, total=total))


async def deliver(request: web.Request) -> web.Response:
    """Delivers an event now."""
    query(request)
    storage, event_id = request.app[CONTEXT].queue.storage, request.match_info["event_id"]
    replayed = await deliver_now(storage, list(await sink_types(storage)), event_id)
    if replayed is None:
        detail = "there is no such event: the id is wrong, its retention has ended, or no sink gets it"
        raise ProblemError(404, ErrorCode.NOT_FOUND, detail)
    request[ABOUT].export_id = replayed.subject
    request[ABOUT].detail["event_id"] = replayed.event_id
    answer = Delivering(event_id=replayed.event_id, export_id=replayed.subject, sinks=list(replayed.sinks))
    return json_response(answer, status=202)


ROUTES = [web.get("/v1/events", events), web.post("/v1/events/{event_id}/deliver", deliver)]
