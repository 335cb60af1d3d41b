"""The handlers of the routes under `/v1`, except the event streams."""

from typing import Any

from aiohttp import web
from pydantic import ValidationError

from export_producers.choices import RESOURCES
from export_producers.client import ExportQueue
from export_producers.gateway.callers.principals import PRINCIPAL, allowed_connections, require
from export_producers.gateway.context import (
    CONTEXT,
    EXPORT,
    json_body,
    json_response,
    limit_of,
    location,
    next_link,
    query,
    retry_after,
)
from export_producers.gateway.documents.schemas import Cancelling, ExportPage, RetryOrder
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.handlers.connections import check_known
from export_producers.gateway.handlers.filters import FILTERS, export_filter
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_producers.identities import KEY_MAX_CHARS
from export_producers.records import Start, wrong_connection
from export_worker.contract.names import did_you_mean
from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Status
from export_worker.contract.trace import TraceContext
from export_worker.errors import ErrorCode, InvalidRequestError

IDEMPOTENCY_KEY = "Idempotency-Key"
STARTS: dict[str, Start] = {"submit": "submit", "poll": "poll", "transfer": "transfer"}


async def enqueue(request: web.Request) -> web.Response:
    """Accepts an export. The same idempotency key with the same request returns the first export."""
    context = request.app[CONTEXT]
    is_dry_run = _is_dry_run(query(request, "dry_run").get("dry_run", "0"))
    key = _idempotency_key(request)
    if is_dry_run:
        return await _dry_run(request, await _offered(request, key))
    with context.hold_key(request[PRINCIPAL].owner, key):
        accepted = await accept(request, await _offered(request, key))
    headers = location(accepted.export_id) | {"Retry-After": "1"}
    if accepted.deduplicated:
        headers |= retry_after(await context.queue.status(accepted.export_id), context.now)
    return json_response(accepted, status=202, headers=headers)


async def accept(request: web.Request, export_request: ExportRequest) -> Accepted:
    """Enqueues an export in the name of the caller."""
    principal, about = request[PRINCIPAL], request[ABOUT]
    about.connection = export_request.connection
    accepted = await request.app[CONTEXT].queue.enqueue(
        export_request, trace=trace_of(request), owner=principal.owner, requested_by=principal.name
    )
    about.export_id = accepted.export_id
    return accepted


def _is_dry_run(text: str) -> bool:
    known = {"1": True, "true": True, "0": False, "false": False}
    if text not in known:
        raise invalid_parameter("dry_run", f"must be one of {', '.join(known)}")
    return known[text]


async def _dry_run(request: web.Request, export_request: ExportRequest) -> web.Response:
    """Returns what would happen to a request. It is checked before its platform is called."""
    context, owner = request.app[CONTEXT], request[PRINCIPAL].owner
    request[ABOUT].is_change = False
    result = await context.queue.dry_run(export_request, owner=owner)
    if context.preview is not None:
        with context.ask_platform(request[PRINCIPAL]):
            platform = await context.preview(export_request)
        result = await context.queue.dry_run(export_request, platform, owner=owner)
    return json_response(result)


def _idempotency_key(request: web.Request) -> str | None:
    values = request.headers.getall(IDEMPOTENCY_KEY, [])
    if not values:
        return None
    (key, *more) = values
    if more or not 1 <= len(key) <= KEY_MAX_CHARS or not all("!" <= letter <= "~" for letter in key):
        raise invalid_parameter(IDEMPOTENCY_KEY, f"must be one key of 1 to {KEY_MAX_CHARS} visible ASCII characters")
    return key


async def _offered(request: web.Request, key: str | None) -> ExportRequest:
    """Reads the body: a request for a connection that the caller may use. Raises the errors of `usable`."""
    return await usable(request, _with_key(parse_request(await json_body(request)), key))


async def usable(request: web.Request, export_request: ExportRequest) -> ExportRequest:
    """Returns the request if the caller may use its connection.

    Raises:
        InvalidRequestError: There is no such connection. A caller that is limited to some gets only their names.
        ProblemError: The caller may not use the connection.
    """
    allowed = allowed_connections(request)
    require(request, export_request.connection)
    every = {} if allowed is None else await request.app[CONTEXT].queue.known_connections()
    known = {name: platform for name, platform in every.items() if allowed is not None and name in allowed}
    platform = known.get(export_request.connection)
    if every and platform != export_request.platform:
        raise wrong_connection(export_request, platform, known)
    return export_request


def _with_key(export_request: ExportRequest, key: str | None) -> ExportRequest:
    if key is None or export_request.idempotency_key == key:
        return export_request
    if export_request.idempotency_key is not None:
        raise invalid_parameter(IDEMPOTENCY_KEY, "differs from the idempotency_key of the body")
    return export_request.model_copy(update={"idempotency_key": key})


def trace_of(request: web.Request) -> TraceContext | None:
    """Returns the caller's trace context; None if the call has none."""
    names = ("traceparent", "tracestate")
    return TraceContext.of({name: request.headers[name] for name in names if name in request.headers})


async def list_exports(request: web.Request) -> web.Response:
    """Returns one page of exports."""
    parameters = query(request, *FILTERS, "limit", "cursor")
    where = export_filter(parameters, allowed_connections(request))
    limit, cursor = limit_of(parameters.get("limit", "50")), parameters.get("cursor")
    try:
        page = await request.app[CONTEXT].queue.page(limit=limit, cursor=cursor, where=where)
    except InvalidRequestError as error:
        raise ProblemError(400, error.code, str(error), errors=error.problems) from None
    answer = ExportPage(
        exports=page.statuses,
        next_cursor=page.cursor,
        total=page.total,
        searched_until=page.searched_until,
        complete=not page.missing,
        missing_queues=list(page.missing),
        archive=page.archive,
    )
    return json_response(answer, headers=next_link(request, page.cursor))


async def status(request: web.Request) -> web.Response:
    """Returns the status of an export."""
    query(request)
    context, export_id = request.app[CONTEXT], request.match_info["export_id"]

    async def read(queue: ExportQueue) -> Status:
        return await context.with_eta(queue, await queue.status(export_id))

    found = await context.queue.of_export(export_id, read)
    return json_response(found, headers=retry_after(found, context.now))


async def cancel(request: web.Request) -> web.Response:
    """Requests the cancellation of an export."""
    query(request)
    export_id = request.match_info["export_id"]
    phase = await request.app[CONTEXT].queue.cancel(export_id)
    answer = Cancelling(export_id=export_id, phase=phase, cancelling=not phase.terminal)
    return json_response(answer, status=202 if answer.cancelling else 200)


async def retry(request: web.Request) -> web.Response:
    """Restarts an export that has ended."""
    context, export_id = request.app[CONTEXT], request.match_info["export_id"]
    start = await _start(request)
    try:
        restarted = await context.queue.retry(export_id, start)
    except InvalidRequestError as error:
        raise ProblemError(409, "not_ended", str(error)) from None
    return json_response(restarted, status=202, headers=location(export_id) | retry_after(restarted, context.now))


async def _start(request: web.Request) -> Start | None:
    """Returns the step from which to restart, as the query string or the body names it."""
    in_query = query(request, "from").get("from")
    if in_query is not None and in_query not in STARTS:
        raise invalid_parameter("from", f"must be one of {', '.join(STARTS)}")
    in_body = None
    if request.can_read_body:
        try:
            in_body = RetryOrder.model_validate_json(await json_body(request) or b"{}").start
        except ValidationError as error:
            malformed = any(detail["type"] == "json_invalid" for detail in error.errors())
            detail = f'must be a JSON object such as {{"from": "poll"}}, with one of {", ".join(STARTS)}'
            raise ProblemError(400 if malformed else 422, ErrorCode.INVALID_REQUEST, f"request: {detail}") from None
    if in_query and in_body and in_query != in_body:
        raise invalid_parameter("from", "differs between the query string and the body")
    return STARTS[in_query] if in_query else in_body


async def catalog(request: web.Request) -> web.Response:
    """Returns what a connection's platform has of a resource."""
    project, resource = query(request, "project").get("project"), request.match_info["resource"]
    return web.json_response(await catalog_items(request, resource, project))


async def catalog_items(request: web.Request, resource: str, project: str | None) -> list[dict[str, Any]]:
    """Returns what the platform of the connection in the path has of a resource.

    Raises:
        ProblemError: There is no such resource, or the packages that call platforms are not installed.
    """
    call, connection = request.app[CONTEXT].catalog, request.match_info["connection"]
    if resource not in RESOURCES:
        meant = did_you_mean(resource, RESOURCES)
        detail = f"unknown resource{meant}; the resources are {', '.join(RESOURCES)}"
        raise ProblemError(404, ErrorCode.NOT_FOUND, detail)
    if call is None:
        detail = "the catalog needs the extra [worker] of export-worker, which is not installed with this gateway"
        raise ProblemError(501, "not_installed", detail)
    await check_known(request)
    try:
        with request.app[CONTEXT].ask_platform(request[PRINCIPAL]):
            return await call(connection, resource, project)
    except InvalidRequestError as error:
        # A wrong part of the path is "not found". A wrong parameter of the query string is an invalid request.
        missing = any(item.field in {"connection", "resource"} for item in error.problems)
        code = ErrorCode.NOT_FOUND if missing else error.code
        raise ProblemError(404 if missing else 422, code, str(error), errors=error.problems) from None


ROUTES = [
    web.post("/v1/exports", enqueue),
    web.get("/v1/exports", list_exports),
    web.get(EXPORT, status),
    web.post(f"{EXPORT}/cancel", cancel),
    web.post(f"{EXPORT}/retry", retry),
    web.get("/v1/catalog/{connection}/{resource}", catalog),
]
