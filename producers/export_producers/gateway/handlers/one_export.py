"""The handlers of the routes that show more about one export: its timeline, explanation and deliveries."""

from aiohttp import web

from export_producers.choices import LANGUAGES
from export_producers.events.deliveries import read_deliveries
from export_producers.gateway.context import CONTEXT, EXPORT, json_response, query
from export_producers.gateway.documents.schemas import Deliveries, Timeline, TimelineEntry
from export_producers.gateway.problems import invalid_parameter
from export_producers.language_choice import preferred
from export_worker.contract.names import did_you_mean
from export_worker.errors import ExportNotFoundError


async def timeline(request: web.Request) -> web.Response:
    """Returns every transition of an export, the oldest first."""
    query(request)
    export_id = request.match_info["export_id"]
    entries = await request.app[CONTEXT].queue.timeline(export_id)
    if not entries:  # the first entry is written with the record
        raise ExportNotFoundError(export_id)
    transitions = [TimelineEntry.model_validate(entry) for entry in entries]
    return json_response(Timeline(export_id=export_id, entries=transitions))


async def explain(request: web.Request) -> web.Response:
    """Returns why an export waits and until when, or how it ended."""
    wished = query(request, "lang").get("lang")
    if wished is not None and wished not in LANGUAGES:
        raise invalid_parameter("lang", f"must be one of {', '.join(LANGUAGES)}{did_you_mean(wished, LANGUAGES)}")
    language = preferred(wished, request.headers.get("Accept-Language"))
    found = await request.app[CONTEXT].queue.explanation(request.match_info["export_id"])
    return json_response(found.document(language), headers={"Content-Language": language})


async def deliveries(request: web.Request) -> web.Response:
    """Returns every completion event of an export with every sink that gets it."""
    query(request)
    export_id = request.match_info["export_id"]
    queues = request.app[CONTEXT].queue
    found = await queues.of_export(export_id, lambda queue: read_deliveries(queue.storage, export_id))
    return json_response(Deliveries(export_id=export_id, deliveries=found))


ROUTES = [
    web.get(f"{EXPORT}/timeline", timeline),
    web.get(f"{EXPORT}/explain", explain),
    web.get(f"{EXPORT}/deliveries", deliveries),
]
