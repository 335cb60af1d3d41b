"""The handlers of the routes under `/v1`, except the event streams."""

from aiohttp import web
from pydantic import ValidationError

from export_producers.choices import LIST_MAX, RESOURCES
from export_producers.gateway.auth import ANONYMOUS
from export_producers.gateway.context import (
    CALLER,
    CONTEXT,
    GatewayContext,
    json_body,
    json_response,
    location,
    query,
    retry_after,
)
from export_producers.gateway.filters import FILTERS, export_filter
from export_producers.gateway.openapi import KEY_MAX_CHARS
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_producers.gateway.schemas import Cancelling, ExportPage, RetryOrder
from export_producers.records import Start
from export_worker.contract.names import did_you_mean
from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest
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
        return await _dry_run(context, _with_key(parse_request(await json_body(request)), key))
    with context.hold_key(key):
        export_request = _with_key(parse_request(await json_body(request)), key)
        accepted = await context.queue.enqueue(export_request, trace=_trace(request), requested_by=_requester(request))
    headers = location(accepted.export_id) | {"Retry-After": "1"}
    if accepted.deduplicated:
        headers |= retry_after(await context.queue.status(accepted.export_id))
    return json_response(accepted, status=202, headers=headers)


def _is_dry_run(text: str) -> bool:
    known = {"1": True, "true": True, "0": False, "false": False}
    if text not in known:
        raise invalid_parameter("dry_run", f"must be one of {', '.join(known)}")
    return known[text]


async def _dry_run(context: GatewayContext, export_request: ExportRequest) -> web.Response:
    """Returns what would happen to a request. It is checked before its platform is called."""
    result = await context.queue.dry_run(export_request)
    if context.preview is not None:
        result = await context.queue.dry_run(export_request, await context.preview(export_request))
    return json_response(result)


def _idempotency_key(request: web.Request) -> str | None:
    values = request.headers.getall(IDEMPOTENCY_KEY, [])
    if not values:
        return None
    (key, *more) = values
    if more or not 1 <= len(key) <= KEY_MAX_CHARS or not all("!" <= letter <= "~" for letter in key):
        raise invalid_parameter(IDEMPOTENCY_KEY, f"must be one key of 1 to {KEY_MAX_CHARS} visible ASCII characters")
    return key


def _with_key(export_request: ExportRequest, key: str | None) -> ExportRequest:
    if key is None or export_request.idempotency_key == key:
        return export_request
    if export_request.idempotency_key is not None:
        raise invalid_parameter(IDEMPOTENCY_KEY, "differs from the idempotency_key of the body")
    return export_request.model_copy(update={"idempotency_key": key})


def _requester(request: web.Request) -> str:
    """Returns the name of the caller."""
    caller = request[CALLER]
    return "anonymous" if caller == ANONYMOUS else f"key-{caller}"


def _trace(request: web.Request) -> TraceContext | None:
    names = ("traceparent", "tracestate")
    return TraceContext.of({name: request.headers[name] for name in names if name in request.headers})


async def list_exports(request: web.Request) -> web.Response:
    """Returns one page of exports."""
    parameters = query(request, *FILTERS, "limit", "cursor")
    where = export_filter(parameters)
    limit, cursor = _limit(parameters.get("limit", "50")), parameters.get("cursor")
    try:
        page = await request.app[CONTEXT].queue.page(limit=limit, cursor=cursor, where=where)
    except InvalidRequestError as error:
        raise ProblemError(400, error.code, str(error), errors=error.problems) from None
    headers = {}
    if page.cursor is not None:
        next_url = request.rel_url.update_query(cursor=page.cursor)
        headers["Link"] = f'<{next_url}>; rel="next"'
    answer = ExportPage(
        exports=page.statuses, next_cursor=page.cursor, total=page.total, searched_until=page.searched_until
    )
    return json_response(answer, headers=headers)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(LIST_MAX)) and 1 <= int(text) <= LIST_MAX):
        raise invalid_parameter("limit", f"must be a whole number from 1 to {LIST_MAX}")
    return int(text)


async def status(request: web.Request) -> web.Response:
    """Returns the status of an export."""
    query(request)
    found = await request.app[CONTEXT].queue.status(request.match_info["export_id"])
    return json_response(found, headers=retry_after(found))


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
    return json_response(restarted, status=202, headers=location(export_id) | retry_after(restarted))


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
    call = request.app[CONTEXT].catalog
    connection, resource = request.match_info["connection"], request.match_info["resource"]
    project = query(request, "project").get("project")
    if resource not in RESOURCES:
        meant = did_you_mean(resource, RESOURCES)
        detail = f"unknown resource{meant}; the resources are {', '.join(RESOURCES)}"
        raise ProblemError(404, ErrorCode.NOT_FOUND, detail)
    if call is None:
        detail = "the catalog needs the extra [worker] of export-worker, which is not installed with this gateway"
        raise ProblemError(501, "not_installed", detail)
    try:
        items = await call(connection, resource, project)
    except InvalidRequestError as error:
        # A wrong part of the path is "not found". A wrong parameter of the query string is an invalid request.
        missing = any(item.field in {"connection", "resource"} for item in error.problems)
        code = ErrorCode.NOT_FOUND if missing else error.code
        raise ProblemError(404 if missing else 422, code, str(error), errors=error.problems) from None
    return web.json_response(items)
