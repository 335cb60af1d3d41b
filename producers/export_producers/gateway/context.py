"""What the handlers share: one gateway's parts, and how a request is read."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
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
from export_producers.gateway.problems import ProblemError, wrong_parameter
from export_worker.contract.status import Status

CatalogCall = Callable[[str, str, str | None], Awaitable[list[dict[str, Any]]]]
"""Lists a resource of a connection, in a project if one is named."""

BODY_S = 20.0
"""A body of some kilobytes that takes longer is meant to hold a connection."""


@dataclass(frozen=True)
class GatewayContext:
    """One gateway.

    Args:
        catalog: None where what asks platforms is not installed.
        streams_max: Event streams at once.
        keep_alive_s: A stream says something at least so often, or proxies take it for dead.
    """

    queue: ExportQueue
    keyring: ApiKeys
    rate: RateLimit
    catalog: CatalogCall | None
    streams_max: int
    keep_alive_s: float
    streams: list[web.Request] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    in_flight: set[str] = field(default_factory=set)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def flight(self, key: str | None) -> Iterator[None]:
        """Hold an idempotency key while its request is worked on.

        Raises:
            ProblemError: Another request holds it.
        """
        if key is None:
            yield
            return
        if key in self.in_flight:
            detail = "a request with this Idempotency-Key is being worked on; its answer can be had in a moment"
            raise ProblemError(409, "in_flight", detail, headers={"Retry-After": "1"})
        self.in_flight.add(key)
        try:
            yield
        finally:
            self.in_flight.discard(key)

    @contextmanager
    def stream(self, request: web.Request) -> Iterator[None]:
        """Count an event stream while it is open.

        Raises:
            ProblemError: Too many are.
        """
        if len(self.streams) >= self.streams_max:
            raise ProblemError(503, "too_many_streams", "too many event streams are open", headers={"Retry-After": "5"})
        self.streams.append(request)
        self.metrics.streams.set(len(self.streams))
        try:
            yield
        finally:
            self.streams.remove(request)
            self.metrics.streams.set(len(self.streams))


CONTEXT = web.AppKey("parts", GatewayContext)


def json_answer(document: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A document of the contract as an answer."""
    body = document.model_dump_json().encode()
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")


def query(request: web.Request, *allowed: str) -> dict[str, str]:
    """The parameters behind the question mark.

    Raises:
        ProblemError: One is unknown, or is given twice.
    """
    for name in request.query:
        if name not in allowed:
            known = ", ".join(allowed) or "there is none"
            raise wrong_parameter("query", f"unknown parameter; allowed here: {known}")
        if len(request.query.getall(name)) > 1:
            raise wrong_parameter(name, "is given twice")
    return dict(request.query)


async def json_body(request: web.Request) -> bytes:
    """The body.

    Raises:
        ProblemError: It is announced as something else than JSON, or takes too long.
    """
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        detail = "the body must be JSON in UTF-8; send the header Content-Type: application/json"
        raise ProblemError(415, "unsupported_media_type", detail, headers={"Accept-Post": "application/json"})
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise ProblemError(408, "request_timeout", f"the body did not arrive within {BODY_S:g} s") from None


def due_header(status: Status) -> dict[str, str]:
    """`Retry-After`: when the export's next step is due, for before that nothing changes."""
    if status.due_at is None:
        return {}
    return {"Retry-After": str(max(1, ceil((status.due_at - datetime.now(UTC)).total_seconds())))}


def location(export_id: str) -> dict[str, str]:
    """Where an export is looked at."""
    return {"Location": f"/v1/exports/{export_id}"}
