"""The handlers of the routes that list completion events, deliver them now, and test sinks."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from aiohttp import web

from export_producers.client import ExportQueue
from export_producers.events.delivering import deliver_given_up, deliver_now
from export_producers.events.detail import EventDetail, read_event
from export_producers.events.listing import STATES, EventPage, Which, export_of, sink_types
from export_producers.events.sink_tests import SinkTest, send_test
from export_producers.gateway.callers.principals import allowed_connections
from export_producers.gateway.context import CONTEXT, json_response, limit_of, next_link, query
from export_producers.gateway.documents.act_schemas import Delivering, DeliveringGivenUp, DeliverOrder, Events
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.handlers.orders import read_order
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_producers.queues.events import events_of, sinks_of
from export_producers.storage import Storage
from export_worker.contract.batch_keys import is_batch_event
from export_worker.contract.model import isoformat
from export_worker.contract.names import unknown_name
from export_worker.errors import ErrorCode, ExportNotFoundError, InvalidRequestError
from export_worker.redis.replay import Replayed

EVENT_ID = r"{event_id:[0-9A-Za-z-]{1,64}\.[0-9]{1,9}}"
"""The id of an event in a path. It has a period, so no other path under `/v1/events` is taken for one."""
EVENT = f"/v1/events/{EVENT_ID}"
"""The path of one event."""

Found = TypeVar("Found")


async def events(request: web.Request) -> web.Response:
    """Returns one page of events in one state."""
    parameters = query(request, "sink", "state", "limit", "cursor")
    page = await event_page(request, parameters, limit_of(parameters.get("limit", "50")))
    missing = list(page.missing)
    answer = Events(deliveries=page.deliveries, next_cursor=page.cursor, total=page.total, missing_queues=missing)
    return json_response(answer, headers=next_link(request, page.cursor))


async def event(request: web.Request) -> web.Response:
    """Returns one event with its deliveries."""
    query(request)
    return json_response(await one_event(request))


async def deliver(request: web.Request) -> web.Response:
    """Delivers an event now."""
    query(request)
    replayed = await deliver_one(request)
    answer = Delivering(event_id=replayed.event_id, export_id=replayed.subject, sinks=list(replayed.sinks))
    return json_response(answer, status=202)


async def deliver_many(request: web.Request) -> web.Response:
    """Delivers the events that were given up."""
    query(request)
    order = await read_order(request, DeliverOrder)
    return json_response(await deliver_all(request, order), status=202)


async def test(request: web.Request) -> web.Response:
    """Tests a sink with an event."""
    query(request)
    result = await test_sink(request)
    if result.state != "pending":
        return json_response(result)
    return json_response(result, status=202, headers={"Location": f"/v1/events/{result.event_id}"})


async def event_page(request: web.Request, parameters: Mapping[str, str], limit: int) -> EventPage:
    """Returns the page of events that the parameters of a query string describe.

    Raises:
        ProblemError: A parameter is wrong.
    """
    wanted = parameters.get("state", "pending")
    state = next((each for each in STATES if each == wanted), None)
    if state is None:
        raise invalid_parameter("state", f"must be one of {', '.join(STATES)}")
    queues, sink = request.app[CONTEXT].queue, parameters.get("sink")
    types = await sinks_of(queues)
    if sink is not None and sink not in types:
        raise invalid_parameter("sink", unknown_name("sink", sink, types))
    which = Which(types if sink is None else {sink: types[sink]}, state, allowed_connections(request))
    try:
        return await events_of(queues, which, limit, parameters.get("cursor"))
    except InvalidRequestError as error:
        raise ProblemError(400, error.code, str(error), errors=error.problems) from None


async def one_event(request: web.Request) -> EventDetail:
    """Returns the event in the path.

    Raises:
        ProblemError: It is not kept.
    """
    return await _of_event(request, read_event)


async def deliver_one(request: web.Request) -> Replayed:
    """Delivers the event in the path now.

    Raises:
        ProblemError: It is not kept, or no sink gets it.
    """

    async def deliver(storage: Storage, event_id: str) -> Replayed | None:
        return await deliver_now(storage, list(await sink_types(storage)), event_id)

    replayed = await _of_event(request, deliver)
    if not is_batch_event(replayed.event_id):
        request[ABOUT].export_id = replayed.subject
    request[ABOUT].detail["event_id"] = replayed.event_id
    return replayed


async def deliver_all(request: web.Request, order: DeliverOrder) -> DeliveringGivenUp:
    """Delivers the events that were given up.

    Raises:
        ProblemError: There is no such sink.
    """
    queues = request.app[CONTEXT].queue
    types = await sinks_of(queues)
    if order.sink is not None:
        types = {order.sink: _type_of(order.sink, types)}
    which = Which(types, "given_up", allowed_connections(request))
    done = (await queues.every(lambda queue: deliver_given_up(queue.storage, which, order.since))).found
    delivering, expired = sum(each.delivering for each in done), sum(each.expired for each in done)
    about = {"since": isoformat(order.since), "sink": order.sink or "", "delivering": str(delivering)}
    request[ABOUT].detail |= {name: text for name, text in about.items() if text}
    return DeliveringGivenUp(delivering=delivering, expired=expired, has_more=any(each.has_more for each in done))


async def test_sink(request: web.Request) -> SinkTest:
    """Tests the sink in the path.

    Raises:
        ProblemError: There is no such sink.
    """
    queues, sink = request.app[CONTEXT].queue, request.match_info["sink"]
    answers = await queues.every(lambda queue: sink_types(queue.storage))
    _type_of(sink, {each: kind for found in answers.found for each, kind in found.items()})
    name = next(name for name, found in answers.by_queue.items() if sink in found)
    result = await queues.ask(name, lambda queue: send_test(queue.storage, sink))
    request[ABOUT].detail |= {"sink": sink, "state": result.state}
    return result


async def _of_event(request: web.Request, call: Callable[[Storage, str], Awaitable[Found | None]]) -> Found:
    """Calls the queue that has the event in the path.

    Raises:
        ProblemError: It is not kept.
    """
    event_id = request.match_info["event_id"]

    async def find(queue: ExportQueue) -> Found:
        found = await call(queue.storage, event_id)
        if found is None:
            raise ExportNotFoundError(export_of(event_id))
        return found

    try:
        return await request.app[CONTEXT].queue.of_export(export_of(event_id), find)
    except ExportNotFoundError:
        raise _missing() from None


def _type_of(sink: str, types: Mapping[str, str]) -> str:
    if sink not in types:
        raise ProblemError(404, ErrorCode.NOT_FOUND, unknown_name("sink", sink, types))
    return types[sink]


def _missing() -> ProblemError:
    detail = "there is no such event: the id is wrong, its retention has ended, or no sink gets it"
    return ProblemError(404, ErrorCode.NOT_FOUND, detail)


ROUTES = [
    web.get("/v1/events", events),
    web.post("/v1/events/deliver", deliver_many),
    web.get(EVENT, event),
    web.post(f"{EVENT}/deliver", deliver),
    web.post("/v1/sinks/{sink}/test", test),
]
