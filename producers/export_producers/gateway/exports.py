"""The routes below `/v1`."""

from aiohttp import web
from pydantic import ValidationError

from export_producers.client import LIST_MAX
from export_producers.gateway.context import CONTEXT, due_header, json_answer, json_body, location, query
from export_producers.gateway.openapi import KEY_MAX, RESOURCES
from export_producers.gateway.problems import ProblemError, wrong_parameter
from export_producers.gateway.schemas import Cancelling, ExportPage, RetryOrder
from export_producers.records import Start
from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Phase
from export_worker.contract.trace import TraceContext
from export_worker.errors import ErrorCode, InvalidRequestError

IDEMPOTENCY_KEY = "Idempotency-Key"
STARTS: dict[str, Start] = {"submit": "submit", "poll": "poll", "transfer": "transfer"}


async def enqueue(request: web.Request) -> web.Response:
    """Accept an export; the same key with the same request gives the first one back."""
    parts = request.app[CONTEXT]
    query(request)
    key = _idempotency_key(request)
    with parts.flight(key):
        wanted = _with_key(parse_request(await json_body(request)), key)
        accepted = await parts.queue.enqueue(wanted, trace=_trace(request))
    headers = location(accepted.export_id) | {"Retry-After": "1"}
    if accepted.deduplicated:
        headers |= due_header(await parts.queue.status(accepted.export_id))
    return json_answer(accepted, status=202, headers=headers)


def _idempotency_key(request: web.Request) -> str | None:
    given = request.headers.getall(IDEMPOTENCY_KEY, [])
    if not given:
        return None
    (key, *more) = given
    if more or not 1 <= len(key) <= KEY_MAX or not all("!" <= letter <= "~" for letter in key):
        raise wrong_parameter(IDEMPOTENCY_KEY, f"must be one key of 1 to {KEY_MAX} visible ASCII characters")
    return key


def _with_key(wanted: ExportRequest, key: str | None) -> ExportRequest:
    if key is None or wanted.idempotency_key == key:
        return wanted
    if wanted.idempotency_key is not None:
        raise wrong_parameter(IDEMPOTENCY_KEY, "differs from the idempotency_key of the body")
    return wanted.model_copy(update={"idempotency_key": key})


def _trace(request: web.Request) -> TraceContext | None:
    names = ("traceparent", "tracestate")
    return TraceContext.of({name: request.headers[name] for name in names if name in request.headers})


async def listing(request: web.Request) -> web.Response:
    """One page of exports."""
    asked = query(request, "phase", "limit", "cursor")
    phase = asked.get("phase")
    if phase is not None and phase not in set(Phase):
        raise wrong_parameter("phase", f"must be one of {', '.join(Phase)}")
    limit = asked.get("limit", "50")
    if not (limit.isascii() and limit.isdecimal() and len(limit) <= len(str(LIST_MAX)) and 1 <= int(limit) <= LIST_MAX):
        raise wrong_parameter("limit", f"must be a whole number from 1 to {LIST_MAX}")
    try:
        page = await request.app[CONTEXT].queue.page(Phase(phase) if phase else None, int(limit), asked.get("cursor"))
    except InvalidRequestError as error:
        raise ProblemError(400, error.code, str(error), errors=error.problems) from None
    headers = {}
    if page.cursor is not None:
        following = request.rel_url.update_query(cursor=page.cursor)
        headers["Link"] = f'<{following}>; rel="next"'
    return json_answer(ExportPage(exports=page.statuses, next_cursor=page.cursor), headers=headers)


async def status(request: web.Request) -> web.Response:
    """Where an export stands."""
    query(request)
    found = await request.app[CONTEXT].queue.status(request.match_info["export_id"])
    return json_answer(found, headers=due_header(found))


async def cancel(request: web.Request) -> web.Response:
    """Ask for an export's end."""
    query(request)
    export_id = request.match_info["export_id"]
    phase = await request.app[CONTEXT].queue.cancel(export_id)
    answer = Cancelling(export_id=export_id, phase=phase, cancelling=not phase.terminal)
    return json_answer(answer, status=202 if answer.cancelling else 200)


async def retry(request: web.Request) -> web.Response:
    """Set an ended export going again."""
    parts, export_id = request.app[CONTEXT], request.match_info["export_id"]
    start = await _start(request)
    try:
        again = await parts.queue.retry(export_id, start)
    except InvalidRequestError as error:
        raise ProblemError(409, "not_ended", str(error)) from None
    return json_answer(again, status=202, headers=location(export_id) | due_header(again))


async def _start(request: web.Request) -> Start | None:
    """Where to begin, as the query or the body says."""
    given = query(request, "from").get("from")
    if given is not None and given not in STARTS:
        raise wrong_parameter("from", f"must be one of {', '.join(STARTS)}")
    told = None
    if request.can_read_body:
        try:
            told = RetryOrder.model_validate_json(await json_body(request) or b"{}").start
        except ValidationError as error:
            malformed = any(detail["type"] == "json_invalid" for detail in error.errors())
            detail = f'must be a JSON object such as {{"from": "poll"}}, with one of {", ".join(STARTS)}'
            raise ProblemError(400 if malformed else 422, ErrorCode.INVALID_REQUEST, f"request: {detail}") from None
    if given and told and given != told:
        raise wrong_parameter("from", "differs between the query and the body")
    return STARTS[given] if given else told


async def catalog(request: web.Request) -> web.Response:
    """What a connection's platform has of a resource."""
    call = request.app[CONTEXT].catalog
    connection, resource = request.match_info["connection"], request.match_info["resource"]
    project = query(request, "project").get("project")
    if resource not in RESOURCES:
        raise ProblemError(404, ErrorCode.NOT_FOUND, f"no such resource; there are {', '.join(RESOURCES)}")
    if call is None:
        detail = "platforms are asked by what the extra [worker] brings, and it is not installed here"
        raise ProblemError(501, "not_installed", detail)
    try:
        items = await call(connection, resource, project)
    except InvalidRequestError as error:
        # What stands in the path is not there; what stands behind it is wrong.
        missing = any(item.field in {"connection", "resource"} for item in error.problems)
        code = ErrorCode.NOT_FOUND if missing else error.code
        raise ProblemError(404 if missing else 422, code, str(error), errors=error.problems) from None
    return web.json_response(items)
