"""The pages of batches: the newest ones, and one of them with its exports."""

from typing import Any

from aiohttp import web

from export_producers.console.frame import page, parts
from export_producers.console.live import Parts, stream
from export_producers.console.views import address, command, row
from export_producers.console.visitors.access import see_other
from export_producers.console.visitors.preferences import CHOICES, preferences_of
from export_producers.gateway.callers.principals import allowed_connections
from export_producers.gateway.context import CONTEXT, query
from export_producers.gateway.handlers.batches import read_batch, read_exports, request_cancel, visible_batches
from export_worker.contract.batch import Batch

PATH = "/console/batches"
BATCH = "/batches/{batch}"
PAGE_ROWS = 50


async def show(request: web.Request) -> web.Response:
    """Shows the newest batches. Two round trips."""
    query(request, *CHOICES)
    return page(
        request,
        "batches",
        title="batches.title",
        command=command("batch", "list"),
        json_url="/v1/batches",
        live_url="/console/live/batches",
        **await _listed(request),
    )


async def _listed(request: web.Request) -> dict[str, Any]:
    found = await visible_batches(request)
    return {"batches": found.batches}


async def live(request: web.Request) -> web.StreamResponse:
    """Follows the newest batches."""
    query(request, *CHOICES)
    language = preferences_of(request).lang

    async def read() -> Parts:
        return parts(language, "batches", await _listed(request))

    return await stream(request, ("batches", language, allowed_connections(request)), read)


async def show_one(request: web.Request) -> web.Response:
    """Shows a batch and a page of its exports."""
    cursor, name = query(request, "cursor", *CHOICES).get("cursor", "0"), request.match_info["batch"]
    batch, found = await read_batch(request), await read_exports(request, cursor, PAGE_ROWS)
    path, now = address_of(batch), request.config_dict[CONTEXT].now
    return page(
        request,
        "batch",
        title="batch.title",
        titled={"name": name},
        **_state(batch),
        rows=[row(status, now) for status in found.exports],
        expired=found.expired,
        first=None if cursor == "0" else path,
        following=None if found.next_cursor is None else address(path, {"cursor": found.next_cursor}),
        command=command("batch", "status", name),
        json_url=f"/v1/batches/{name}",
        live_url=f"/console/live/batches/{name}",
    )


def address_of(batch: Batch) -> str:
    """Returns the address of the page of a batch."""
    return f"{PATH}/{batch.batch}"


def _state(batch: Batch) -> dict[str, Any]:
    return {"batch": batch, "is_open": batch.state != "completed"}


async def live_one(request: web.Request) -> web.StreamResponse:
    """Follows the counts of a batch."""
    query(request, *CHOICES)
    language = preferences_of(request).lang
    name = (await read_batch(request)).batch

    async def read() -> Parts:
        return parts(language, "batch", _state(await read_batch(request)))

    return await stream(request, ("batch", name, language), read, takes_turns=True)


async def cancel(request: web.Request) -> web.Response:
    """Requests the cancellation of a batch."""
    return see_other(address_of(await request_cancel(request)))


ROUTES = [
    web.get("/batches", show),
    web.get("/live/batches", live, allow_head=False),
    web.get(BATCH, show_one),
    web.get(f"/live{BATCH}", live_one, allow_head=False),
    web.post(f"{BATCH}/cancel", cancel),
]
