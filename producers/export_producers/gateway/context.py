"""What the handlers share: the state of one gateway, and how requests are read and responses are written."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from export_producers.client import ExportQueue
from export_producers.gateway.auth import ApiKeys, RateLimit
from export_producers.gateway.metrics import Metrics
from export_producers.gateway.options import GatewayOptions
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_worker.contract.dry_run import PreviewCall
from export_worker.contract.names import NAME_MAX_CHARS, did_you_mean
from export_worker.contract.status import Status

CatalogCall = Callable[[str, str, str | None], Awaitable[list[dict[str, Any]]]]
"""Lists a resource of a connection. Takes connection, resource, and project or None."""

BODY_TIMEOUT_S = 20.0
"""Limit for receiving a body, which has some kilobytes. A slower client would hold a connection for nothing."""


@dataclass(frozen=True)
class GatewayContext:
    """The state of one gateway.

    Args:
        catalog: None if the packages that call platforms are not installed.
        preview: Asks a platform what it has of a request; None if this gateway asks no platform.
        streams: The requests of the open event streams.
        in_flight: The idempotency keys of the requests in progress.
        stopping: Set when the gateway stops. Event streams then end.
    """

    queue: ExportQueue
    api_keys: ApiKeys
    rate_limit: RateLimit
    catalog: CatalogCall | None
    options: GatewayOptions
    preview: PreviewCall | None = None
    streams: list[web.Request] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    in_flight: set[str] = field(default_factory=set)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def hold_key(self, key: str | None) -> Iterator[None]:
        """Reserves an idempotency key while its request is in progress.

        Raises:
            ProblemError: Another request with this key is in progress.
        """
        if key is None:
            yield
            return
        if key in self.in_flight:
            detail = "another request with this Idempotency-Key is in progress; retry in a moment"
            raise ProblemError(409, "in_flight", detail, headers={"Retry-After": "1"})
        self.in_flight.add(key)
        try:
            yield
        finally:
            self.in_flight.discard(key)

    @contextmanager
    def open_stream(self, request: web.Request) -> Iterator[None]:
        """Counts an event stream while it is open.

        Raises:
            ProblemError: Too many event streams are open.
        """
        if len(self.streams) >= self.options.max_streams:
            detail = "too many event streams are open; retry later"
            raise ProblemError(503, "too_many_streams", detail, headers={"Retry-After": "5"})
        self.streams.append(request)
        self.metrics.streams.set(len(self.streams))
        try:
            yield
        finally:
            self.streams.remove(request)
            self.metrics.streams.set(len(self.streams))


CONTEXT = web.AppKey("context", GatewayContext)
CALLER = web.RequestKey("caller", int)


def json_response(document: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Returns a response with a model as JSON."""
    body = document.model_dump_json().encode()
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")


def query(request: web.Request, *allowed: str) -> dict[str, str]:
    """Returns the parameters of the query string.

    Raises:
        ProblemError: A parameter is unknown or is given twice.
    """
    for name in request.query:
        if name not in allowed:
            raise invalid_parameter("query", unknown_parameter(name, allowed))
        if len(request.query.getall(name)) > 1:
            raise invalid_parameter(name, "is given twice")
    return dict(request.query)


def unknown_parameter(name: str, allowed: Sequence[str]) -> str:
    """Returns the message for a parameter that a route does not have."""
    named = f" {name!r}" if len(name) <= NAME_MAX_CHARS else ""
    return f"unknown parameter{named}{did_you_mean(name, allowed)}; allowed here: {', '.join(allowed) or 'none'}"


async def json_body(request: web.Request) -> bytes:
    """Reads the body.

    Raises:
        ProblemError: Its content type is not JSON, or it takes too long to arrive.
    """
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        detail = "the body must be JSON in UTF-8; send the header Content-Type: application/json"
        raise ProblemError(415, "unsupported_media_type", detail, headers={"Accept-Post": "application/json"})
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise ProblemError(408, "request_timeout", f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None


def retry_after(status: Status) -> dict[str, str]:
    """Returns the header `Retry-After` with the time until the export's next step, before which nothing changes."""
    if status.due_at is None:
        return {}
    return {"Retry-After": str(max(1, ceil((status.due_at - datetime.now(UTC)).total_seconds())))}


def location(export_id: str) -> dict[str, str]:
    """Returns the header `Location` with the path of an export's status."""
    return {"Location": f"/v1/exports/{export_id}"}
