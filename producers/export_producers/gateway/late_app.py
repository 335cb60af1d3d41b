"""An application below a prefix that is built with the first request to it.

The console has a tenth of the modules of a gateway, and many gateways are called by programs only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NoReturn

from aiohttp import web
from aiohttp.web_urldispatcher import PrefixedSubAppResource, PrefixResource


class LateApp(PrefixResource):
    """Dispatches to an application that `build` returns. Its signals of start and end are not sent.

    Args:
        prefix: The beginning of its paths, without a slash at the end.
        build: Called once, with the first request; again if it fails.
    """

    def __init__(self, prefix: str, build: Callable[[], Awaitable[web.Application]]) -> None:
        super().__init__(prefix)
        self._build = build
        self._resource: PrefixedSubAppResource | None = None
        self._building = asyncio.Lock()

    async def resolve(self, request: web.Request) -> Any:
        """See `AbstractResource`."""
        if not request.rel_url.raw_path.startswith(self._prefix2):
            return None, set()
        async with self._building:
            if self._resource is None:
                app = await self._build()
                self._resource = PrefixedSubAppResource(self._prefix, app)
                app.pre_freeze()
        return await self._resource.resolve(request)

    def url_for(self, *args: str, **kwargs: str) -> NoReturn:
        """See `AbstractResource`."""
        del args, kwargs
        raise RuntimeError("the root of an application has no URL of its own")

    def get_info(self) -> Any:
        """See `AbstractResource`."""
        return {"prefix": self._prefix}

    def __len__(self) -> int:
        return 0 if self._resource is None else len(self._resource)

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter(()) if self._resource is None else iter(self._resource)
