"""The keys of the console: a page, and the same as a dialog of every page."""

from aiohttp import web

from export_producers.console.frame import page
from export_producers.console.visitors.preferences import CHOICES
from export_producers.gateway.context import query


async def show(request: web.Request) -> web.Response:
    """Shows the keys, and the link that switches them off."""
    query(request, *CHOICES)
    return page(request, "keys", title="keys.title")


ROUTES = [web.get("/keys", show)]
