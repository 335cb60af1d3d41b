"""What the handlers share: the state of one gateway, and how requests are read and responses are written."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from math import ceil
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from export_producers.choices import LIST_MAX
from export_producers.client import ExportQueue
from export_producers.facts import read_eta, with_known_eta
from export_producers.gateway.callers.auth import Callers, RateLimit
from export_producers.gateway.callers.principals import PRINCIPAL, Principal
from export_producers.gateway.callers.wrong_keys import WrongKeys
from export_producers.gateway.installation import Installation
from export_producers.gateway.metrics import Metrics
from export_producers.gateway.options import GatewayOptions
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_producers.queues.feeds import ChangesOfQueues
from export_producers.queues.queues import ExportQueues
from export_producers.reads.change_feed import ChangeFeed
from export_producers.reads.failures_document import Failures
from export_producers.reads.overview_document import Overview, WorkerState
from export_producers.reads.shared import SharedRead, SharedReads
from export_worker.contract.dry_run import PreviewCall
from export_worker.contract.names import NAME_MAX_CHARS, did_you_mean
from export_worker.contract.status import Eta, Status

CatalogCall = Callable[[str, str, str | None], Awaitable[list[dict[str, Any]]]]
"""Lists a resource of a connection. Takes connection, resource, and project or None."""

EXPORT = "/v1/exports/{export_id:[0-9A-Za-z-]{1,64}}"
"""The path of one export."""

BODY_TIMEOUT_S = 20.0
"""Limit for receiving a body, which has some kilobytes. A slower client would hold a connection for nothing."""

ETA_KEPT_S = 5.0
"""The usual durations of a kind change with each export that ends, but only a little."""
ETAS_MAX = 200
"""Kinds and connections whose usual durations are kept, a few hundred bytes each."""
ASKING_MAX = 4
"""Questions to platforms that one caller may have open: catalogs and dry runs."""


@dataclass(frozen=True)
class GatewayContext:
    """The state of one gateway.

    Args:
        wrong_keys: The wrong keys of each address, in calls and at the login.
        etas: The usual durations of each kind, read again after some seconds.
        changes: Reads the changes of exports once for all clients.
        overview: Reads the overview once for all callers of a second.
        workers: Reads the workers in the same way.
        failures: Reads the causes of failures once in some seconds for each filter.
        catalog: None if the packages that call platforms are not installed.
        preview: Asks a platform what it has of a request; None if this gateway asks no platform.
        installation: What this gateway knows beyond Redis.
        streams: The requests of the open event streams.
        in_flight: The owners and idempotency keys of the requests in progress.
        asking: The callers for whom platforms are asked now.
        doctor_running: Held while the checks of `doctor` run.
        stopping: Set when the gateway stops. Event streams then end.
    """

    queue: ExportQueues
    callers: Callers
    rate_limit: RateLimit
    wrong_keys: WrongKeys
    overview: SharedRead[Overview]
    workers: SharedRead[list[WorkerState]]
    failures: SharedReads[Failures]
    changes: ChangeFeed | ChangesOfQueues
    catalog: CatalogCall | None
    options: GatewayOptions
    preview: PreviewCall | None = None
    installation: Installation = field(default_factory=Installation)
    streams: list[web.Request] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    in_flight: set[tuple[str | None, str]] = field(default_factory=set)
    etas: SharedReads[Eta | None] = field(default_factory=partial(SharedReads, ETA_KEPT_S, most=ETAS_MAX))
    asking: list[str] = field(default_factory=list)
    doctor_running: asyncio.Lock = field(default_factory=asyncio.Lock)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def now(self) -> datetime:
        """The time that all processes use, as far as this gateway knows it: the clock of its host may be wrong.

        The overview, which all pages show, sets this clock once a minute.
        """
        return self.queue.now

    async def with_eta(self, queue: ExportQueue, status: Status) -> Status:
        """Returns a status with the usual durations of its kind, which may be some seconds old once they are known.

        Raises:
            ServiceUnreachableError: Redis cannot be reached or refuses a command.
        """
        read = partial(read_eta, queue.storage, status.connection, status.kind)
        key = queue.storage.url, queue.storage.keys.namespace, status.connection, status.kind
        eta = await self.etas.get(key, read)
        if eta is None:
            self.etas.forget(key)
            return status
        return with_known_eta(status, eta)

    @contextmanager
    def hold_key(self, owner: str | None, key: str | None) -> Iterator[None]:
        """Reserves an idempotency key while its request is in progress.

        Args:
            owner: See `Principal.owner`.

        Raises:
            ProblemError: Another request with this key is in progress.
        """
        if key is None:
            yield
            return
        if (owner, key) in self.in_flight:
            detail = "another request with this Idempotency-Key is in progress; retry in a moment"
            raise ProblemError(409, "in_flight", detail, headers={"Retry-After": "1"})
        self.in_flight.add((owner, key))
        try:
            yield
        finally:
            self.in_flight.discard((owner, key))

    @contextmanager
    def ask_platform(self, principal: Principal) -> Iterator[None]:
        """Counts a question to a platform while it is open. The limits of connections do not count these calls.

        Raises:
            ProblemError: The caller has too many.
        """
        if self.asking.count(principal.id) >= ASKING_MAX:
            detail = f"{principal.name} has {ASKING_MAX} open questions to platforms; wait for one of the answers"
            raise ProblemError(429, "too_many_requests", detail, headers={"Retry-After": "1"})
        self.asking.append(principal.id)
        try:
            yield
        finally:
            self.asking.remove(principal.id)

    @contextmanager
    def open_stream(self, request: web.Request) -> Iterator[None]:
        """Counts an event stream while it is open.

        Raises:
            ProblemError: Too many event streams are open, or the caller has as many as its share.
        """
        self._check_streams(request[PRINCIPAL])
        self.streams.append(request)
        self.metrics.streams.set(len(self.streams))
        try:
            yield
        finally:
            self.streams.remove(request)
            self.metrics.streams.set(len(self.streams))

    def _check_streams(self, principal: Principal) -> None:
        if len(self.streams) >= self.options.max_streams:
            detail = "too many event streams are open; retry later"
            raise ProblemError(503, "too_many_streams", detail, headers={"Retry-After": "5"})
        share, person = stream_shares(self.options.max_streams, self.callers.count)
        open_by = [request[PRINCIPAL] for request in self.streams]
        of_person = sum(each.id == principal.id for each in open_by)
        of_share = sum(each.kind == "person" for each in open_by) if principal.kind == "person" else of_person
        if of_share >= share or (principal.kind == "person" and of_person >= person):
            detail = f"{principal.name} has {of_person} open event streams, which is its share; close some first"
            raise ProblemError(429, "too_many_streams", detail, headers={"Retry-After": "5"})


CONTEXT = web.AppKey("context", GatewayContext)


def stream_shares(max_streams: int, callers: int) -> tuple[int, int]:
    """Returns how many event streams one key may have open, and how many one person.

    All keys have equal shares. All people together have the share of one key, and each of them a tenth of it.
    """
    share = max(1, max_streams // callers)
    return share, max(1, share // 10)


def json_response(document: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Returns a response with a model as JSON."""
    body = document.model_dump_json().encode()
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")


def query(request: web.Request, *allowed: str) -> dict[str, str]:
    """Returns the parameters of the query string.

    A parameter without a value selects nothing in a request that only reads: forms of web pages send their empty
    fields. In an order it stays, so that it is refused.

    Raises:
        ProblemError: A parameter is unknown or is given twice.
    """
    for name in request.query:
        if name not in allowed:
            raise invalid_parameter("query", unknown_parameter(name, allowed))
        if len(request.query.getall(name)) > 1:
            raise invalid_parameter(name, "is given twice")
    reads = request.method in {"GET", "HEAD"}
    return {name: value for name, value in request.query.items() if value or not reads}


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


def limit_of(text: str, most: int = LIST_MAX) -> int:
    """Returns the parameter `limit`: the size of a page, at most `most`.

    Raises:
        ProblemError: It is no number, or out of range.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise invalid_parameter("limit", f"must be a whole number from 1 to {most}")
    return int(text)


def next_link(request: web.Request, cursor: str | None) -> dict[str, str]:
    """Returns the header `Link` with the address of the next page, if there is one."""
    return {} if cursor is None else {"Link": f'<{request.rel_url.update_query(cursor=cursor)}>; rel="next"'}


def retry_after(status: Status, now: datetime) -> dict[str, str]:
    """Returns the header `Retry-After` with the time until the export's next step, before which nothing changes."""
    if status.due_at is None:
        return {}
    return {"Retry-After": str(max(1, ceil((status.due_at - now).total_seconds())))}


def location(export_id: str) -> dict[str, str]:
    """Returns the header `Location` with the path of an export's status."""
    return {"Location": f"/v1/exports/{export_id}"}
