"""The handler of the route that makes a link with which a browser downloads one object of an export."""

from aiohttp import web

from export_producers.gateway.context import CONTEXT, EXPORT, json_response, query
from export_producers.gateway.documents.act_schemas import ObjectLink
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.installation import LINK_VALID_S
from export_producers.gateway.problems import ProblemError
from export_worker.contract.status import StoredObject
from export_worker.errors import ErrorCode

NUMBER_MAX_CHARS = 9
"""Limit of the number of an object. No export has so many files."""


async def link(request: web.Request) -> web.Response:
    """Makes a link to an object."""
    query(request)
    return json_response(await make_link(request))


async def make_link(request: web.Request) -> ObjectLink:
    """Makes a link to the object in the path. The activity gets the name of the file, and never the link.

    Raises:
        ProblemError: The configuration allows no links, or the export has no such object.
    """
    context, export_id = request.app[CONTEXT], request.match_info["export_id"]
    if not context.options.presign:
        detail = "this gateway makes no links to objects; set gateway.console.presign = true to allow them"
        raise ProblemError(404, "links_off", detail)
    status = await context.queue.status(export_id)
    stored = _numbered(status.objects, request.match_info["number"])
    if context.installation.link is None:
        detail = "links need the extra [worker] of export-worker, which is not installed with this gateway"
        raise ProblemError(501, "not_installed", detail)
    url = await context.installation.link(status.connection, stored)
    request[ABOUT].export_id, request[ABOUT].connection = export_id, status.connection
    request[ABOUT].detail["file"] = stored.file_name
    return ObjectLink(url=url, file_name=stored.file_name, valid_s=LINK_VALID_S)


def _numbered(objects: list[StoredObject], number: str) -> StoredObject:
    is_number = number.isascii() and number.isdecimal() and len(number) <= NUMBER_MAX_CHARS
    if not is_number or not 1 <= int(number) <= len(objects):
        detail = f"the export has no object with this number; it has {len(objects)}, and the first one has the number 1"
        raise ProblemError(404, ErrorCode.NOT_FOUND, detail)
    return objects[int(number) - 1]


ROUTES = [web.post(f"{EXPORT}/objects/{{number}}/link", link)]
