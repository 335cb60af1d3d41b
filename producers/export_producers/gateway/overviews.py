"""The handlers of what concerns no single export."""

from aiohttp import web

from export_producers.gateway.context import CONTEXT, json_response, query


async def overview(request: web.Request) -> web.Response:
    """Returns the state of everything. Redis is read once a second at most."""
    query(request)
    return json_response(await request.app[CONTEXT].overview.get())


ROUTES = [web.get("/v1/overview", overview)]
