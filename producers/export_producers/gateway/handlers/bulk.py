"""The handlers of the routes that retry or cancel many exports."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

from aiohttp import web

from export_producers.bulk.documents import BulkPreview, BulkRequest, BulkRun
from export_producers.bulk.runs import TooManyRunsError
from export_producers.gateway.callers.principals import PRINCIPAL, allowed_connections, require
from export_producers.gateway.context import CONTEXT, json_response, query
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.handlers.bulk_runs import BulkRuns, Counted, merged_preview
from export_producers.gateway.handlers.orders import read_order
from export_producers.gateway.problems import ProblemError
from export_producers.queues.fan_out import Answers
from export_worker.errors import ErrorCode
from export_worker.redis.cancellation import cancel_and_wait

BULK = "/v1/bulk/{bulk_id}"
GROWTH_MAX = 1.1
"""So many times as many exports as expected may match: some may have failed since the dry run."""
BULKS = web.AppKey("bulks", BulkRuns)


async def running(app: web.Application) -> AsyncIterator[None]:
    """Runs bulk orders while the gateway runs."""
    app[BULKS] = BulkRuns(app[CONTEXT].queue)
    task = asyncio.create_task(app[BULKS].run())
    yield
    await cancel_and_wait(task)
    await app[BULKS].stop()


async def order(request: web.Request) -> web.Response:
    """Counts the exports of a dry run, or starts a run."""
    query(request)
    ordered = await read_order(request, BulkRequest)
    request[ABOUT].is_change = not ordered.dry_run
    if ordered.dry_run:
        found, _ = await count(request, ordered)
        return json_response(found)
    run = await start(request, ordered)
    headers = {"Location": f"/v1/bulk/{run.bulk_id}", "Retry-After": "1"}
    return json_response(run, status=202, headers=headers)


async def count(request: web.Request, ordered: BulkRequest) -> tuple[BulkPreview, datetime]:
    """Returns what an order would do, and the time of this state. Raises the errors of `_counted`."""
    counted = await _counted(request, ordered)
    return merged_preview(counted), max(now for _, now in counted.found)


async def _counted(request: web.Request, ordered: BulkRequest) -> Answers[Counted]:
    """Returns what an order would do in each queue.

    Raises:
        ProblemError: The caller may not use the connection of the filter.
    """
    if ordered.filter.connection is not None:
        require(request, ordered.filter.connection)
    return await request.config_dict[BULKS].count(ordered, allowed_connections(request))


async def start(request: web.Request, ordered: BulkRequest, bulk_id: str | None = None) -> BulkRun:
    """Starts a run. See `BulkRuns.add`.

    Raises:
        ProblemError: The caller may not use the connection, more exports match than expected, or too many runs are
            open.
    """
    counted, allowed = await _counted(request, ordered), allowed_connections(request)
    found = merged_preview(counted)
    if ordered.expect is not None and found.count > ordered.expect * GROWTH_MAX:
        detail = f"{found.count} exports match, but {ordered.expect} were expected; repeat the dry run"
        raise ProblemError(409, "more_than_expected", detail)
    try:
        run = await request.config_dict[BULKS].add(ordered, counted, request[PRINCIPAL].name, allowed, bulk_id)
    except TooManyRunsError as error:
        raise ProblemError(503, "too_many_runs", str(error), headers={"Retry-After": "5"}) from None
    conditions = ordered.filter.model_dump_json(exclude_none=True)
    request[ABOUT].connection = ordered.filter.connection
    request[ABOUT].detail |= {
        "bulk_id": run.bulk_id,
        "action": ordered.action,
        "filter": conditions,
        "count": str(found.count),
    }
    return run


async def status(request: web.Request) -> web.Response:
    """Returns how far a run is."""
    query(request)
    return json_response(await read_run(request))


async def stop(request: web.Request) -> web.Response:
    """Requests that a run stops. A run that has ended is not changed."""
    query(request)
    run = await request_stop(request)
    return json_response(run, status=202 if run.state == "stopping" else 200)


async def request_stop(request: web.Request) -> BulkRun:
    """Requests that the run in the path stops, and returns it. A run that has ended is not changed."""
    run = await read_run(request)
    request[ABOUT].detail["bulk_id"] = run.bulk_id
    if run.state != "running":
        return run
    await request.config_dict[BULKS].request_stop(run.bulk_id)
    return await read_run(request)


async def read_run(request: web.Request) -> BulkRun:
    """Returns the run in the path. Needs one round trip.

    Raises:
        ProblemError: There is no such run, or the caller may not use its connections.
    """
    run = await request.config_dict[BULKS].get(request.match_info["bulk_id"])
    if run is None or not _is_visible(run, allowed_connections(request)):
        raise ProblemError(404, ErrorCode.NOT_FOUND, "there is no such bulk run; runs are kept for seven days")
    return run


def _is_visible(run: BulkRun, allowed: frozenset[str] | None) -> bool:
    """Returns whether a caller may use every connection that a run concerns."""
    return allowed is None or (run.connections is not None and allowed.issuperset(run.connections))


ROUTES = [web.post("/v1/bulk", order), web.get(BULK, status), web.post(f"{BULK}/stop", stop)]
