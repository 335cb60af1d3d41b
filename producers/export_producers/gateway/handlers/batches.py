"""The handlers of the routes under `/v1/batches`."""

import asyncio

from aiohttp import web

from export_producers.batches import BatchRequester
from export_producers.gateway.callers.principals import PRINCIPAL, allowed_connections, require
from export_producers.gateway.context import CONTEXT, json_body, json_response, limit_of, next_link, query
from export_producers.gateway.documents.act_schemas import BatchesFound, BatchExports
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.handlers.exports import trace_of
from export_producers.gateway.problems import invalid_parameter
from export_producers.queues.of_batches import enqueue_batch, newest_batches, of_batch
from export_worker.contract.batch import BATCH_MAX, Batch, BatchNotFoundError, BatchOrder
from export_worker.contract.parsing import BATCH_MAX_BYTES, parse_batch

BATCH = "/v1/batches/{batch}"
CURSOR_MAX = 6
"""Characters of a cursor: the place of a request in its batch."""


async def enqueue(request: web.Request) -> web.Response:
    """Accepts a batch. The same name with the same requests is the same batch."""
    query(request)
    # Ten thousand requests take a second: other calls are answered meanwhile.
    order = await asyncio.to_thread(parse_batch, await json_body(request.clone(client_max_size=BATCH_MAX_BYTES)))
    batch = await accept(request, order)
    return json_response(batch, status=202, headers={"Location": f"/v1/batches/{batch.batch}", "Retry-After": "1"})


async def accept(request: web.Request, order: BatchOrder) -> Batch:
    """Enqueues a batch in the name of the caller.

    Raises:
        ProblemError: The caller may not use one of its connections.
    """
    principal, about = request[PRINCIPAL], request[ABOUT]
    for connection in sorted({each.connection for each in order.requests}):
        require(request, connection)
    by = BatchRequester(principal.name, trace_of(request))
    batch = await enqueue_batch(request.app[CONTEXT].queue, order.batch, order.requests, by)
    _note(request, batch)
    about.detail["exports"] = str(batch.total)
    return batch


def _note(request: web.Request, batch: Batch) -> None:
    """Notes for the activity what the call acts on."""
    about = request[ABOUT]
    about.detail["batch"] = batch.batch
    about.connection = batch.connections[0] if len(batch.connections) == 1 else None


async def batches(request: web.Request) -> web.Response:
    """Returns the newest batches."""
    query(request)
    return json_response(await visible_batches(request))


async def visible_batches(request: web.Request) -> BatchesFound:
    """Returns the newest batches that the caller may see."""
    found, allowed = await newest_batches(request.config_dict[CONTEXT].queue), allowed_connections(request)
    return BatchesFound(
        batches=[batch for batch in found.batches if allowed is None or allowed.issuperset(batch.connections)],
        missing_queues=list(found.missing),
    )


async def status(request: web.Request) -> web.Response:
    """Returns how far a batch is."""
    query(request)
    return json_response(await read_batch(request))


async def read_batch(request: web.Request) -> Batch:
    """Returns the batch in the path.

    Raises:
        BatchNotFoundError: There is no such batch, or the caller may not use all its connections.
    """
    name, allowed = request.match_info["batch"], allowed_connections(request)
    batch = await of_batch(request.config_dict[CONTEXT].queue, name, lambda queue: queue.batches.status(name))
    if allowed is not None and not allowed.issuperset(batch.connections):
        raise BatchNotFoundError(name)
    return batch


async def exports(request: web.Request) -> web.Response:
    """Returns one page of the exports of a batch, in the order of its requests."""
    parameters = query(request, "limit", "cursor")
    page = await read_exports(request, parameters.get("cursor", "0"), limit_of(parameters.get("limit", "50"), 500))
    return json_response(page, headers=next_link(request, page.next_cursor))


async def read_exports(request: web.Request, cursor: str, limit: int) -> BatchExports:
    """Returns one page of the exports of the batch in the path.

    Raises:
        ProblemError: The cursor is none.
    """
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= CURSOR_MAX and int(cursor) <= BATCH_MAX):
        raise invalid_parameter("cursor", "must be the next_cursor of an earlier page")
    batch, first = await read_batch(request), int(cursor)
    queues, name = request.config_dict[CONTEXT].queue, batch.batch
    found = await of_batch(queues, name, lambda queue: queue.batches.exports(name, first, limit))
    following = first + len(found)
    return BatchExports(
        exports=[each for each in found if each is not None],
        expired=sum(each is None for each in found),
        next_cursor=str(following) if found and following < batch.accepted else None,
    )


async def cancel(request: web.Request) -> web.Response:
    """Requests the cancellation of every open export of a batch."""
    query(request)
    batch = await request_cancel(request)
    return json_response(batch, status=200 if batch.state == "completed" else 202)


async def request_cancel(request: web.Request) -> Batch:
    """Requests the cancellation of the batch in the path, and returns it."""
    name = (await read_batch(request)).batch
    batch = await of_batch(request.config_dict[CONTEXT].queue, name, lambda queue: queue.batches.cancel(name))
    _note(request, batch)
    return batch


ROUTES = [
    web.post("/v1/batches", enqueue),
    web.get("/v1/batches", batches),
    web.get(BATCH, status),
    web.get(f"{BATCH}/exports", exports),
    web.post(f"{BATCH}/cancel", cancel),
]
