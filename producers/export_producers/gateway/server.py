"""Runs the gateway as a process, from binding its address to a graceful stop."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from time import monotonic

import structlog
from aiohttp import web

from export_producers.client import ExportQueue
from export_producers.gateway.app import build_app
from export_producers.gateway.callers.auth import Callers, RateLimit
from export_producers.gateway.callers.wrong_keys import WrongKeys
from export_producers.gateway.context import CatalogCall, GatewayContext
from export_producers.gateway.handlers.failures import FAILURES_KEPT_S
from export_producers.gateway.installation import Installation
from export_producers.gateway.options import GatewayOptions
from export_producers.gateway.problems import error_response, status_response
from export_producers.queues.queues import ExportQueues
from export_producers.reads.shared import SharedRead, SharedReads
from export_producers.searching import index_metadata
from export_worker.contract.dry_run import PreviewCall
from export_worker.errors import ConfigError, ServiceUnreachableError
from export_worker.redis.cancellation import cancel_and_wait

HEADER_MAX_BYTES = 8190
"""Limit of the request line and of one header field: the default of most servers."""
IDLE_TIMEOUT_S = 75.0
"""A connection on which no complete request arrives for so long is closed."""
INDEX_RETRY_S = 5.0
"""Between two attempts to set up the index of a queue that could not be reached when the gateway started."""

NOTHING_KNOWN = Installation()

_log = structlog.get_logger(__name__)


async def serve(
    options: GatewayOptions,
    queue: ExportQueue | ExportQueues,
    catalog: CatalogCall | None,
    stop: asyncio.Event,
    *,
    preview: PreviewCall | None = None,
    installation: Installation = NOTHING_KNOWN,
) -> None:
    """Prints one line with the address, then serves until `stop` is set and finishes running requests.

    Args:
        preview: Asks a platform what it has of a request, for dry runs.
        installation: What the gateway knows beyond Redis.

    Raises:
        ConfigError: The address cannot be bound, or would open the gateway to everyone.
        ServiceUnreachableError: Redis is unreachable at the start.
    """
    options.check()
    async with (
        indexing(ExportQueues.of(queue), options.search_metadata),
        listening(options, queue, catalog, preview=preview, installation=installation) as url,
    ):
        sys.stdout.write(f"gateway: {url}\n")
        sys.stdout.flush()
        _log.info("gateway.started", url=url, keys=len(options.api_keys) + len(options.keys))
        await stop.wait()
        _log.info("gateway.stopping")


@asynccontextmanager
async def indexing(queues: ExportQueues, names: Sequence[str]) -> AsyncIterator[None]:
    """Sets by which metadata exports are indexed. A queue that cannot be reached now is set up when it can be.

    Raises:
        ServiceUnreachableError: No queue can be reached.
    """

    async def index() -> bool:
        done = await queues.every(lambda queue: index_metadata(queue.storage, names, datetime.now(UTC)))
        return not done.missing

    async def index_the_others() -> None:
        while True:
            await asyncio.sleep(INDEX_RETRY_S)
            with suppress(ServiceUnreachableError):
                if await index():
                    return

    rest = None if await index() else asyncio.create_task(index_the_others())
    try:
        yield
    finally:
        if rest is not None:
            await cancel_and_wait(rest)


@asynccontextmanager
async def listening(
    options: GatewayOptions,
    queue: ExportQueue | ExportQueues,
    catalog: CatalogCall | None = None,
    clock: Callable[[], float] = monotonic,
    *,
    preview: PreviewCall | None = None,
    installation: Installation = NOTHING_KNOWN,
) -> AsyncIterator[str]:
    """Serves while the block runs. Yields the base URL, without a slash at the end.

    Args:
        clock: The clock of the rate limit and of shared reads.

    Raises:
        ConfigError: The address cannot be bound.
    """
    queues = ExportQueues.of(queue)
    context = GatewayContext(
        queue=queues,
        callers=Callers(options),
        rate_limit=RateLimit(options.requests_per_second, options.burst, clock),
        wrong_keys=WrongKeys(clock),
        overview=SharedRead(queues.overview, clock=clock),
        workers=SharedRead(queues.workers, clock=clock),
        failures=SharedReads(FAILURES_KEPT_S, clock),
        changes=queues.changes(),
        catalog=catalog,
        options=options,
        preview=preview,
        installation=installation,
    )
    runner = _Runner(build_app(context), shutdown_timeout=options.stop_s, access_log=None)
    await runner.setup()
    try:
        await _bind(runner, options)
        yield f"http://{_url_host(options.host)}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, options: GatewayOptions) -> None:
    host, port = options.host, options.port
    try:
        await web.TCPSite(runner, host, port).start()
    except (socket.gaierror, UnicodeError):
        raise ConfigError(f"gateway.host: {host!r} is no address of this machine") from None
    except (OSError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number else str(error)
        raise ConfigError(f"gateway.port: cannot listen on {host}:{port} ({reason})") from None


def _url_host(host: str) -> str:
    """Returns the host for a URL. A server that is bound to all addresses is reachable at the loopback address."""
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


class _Runner(web.AppRunner):
    """Makes the server send problem responses also for requests that no application receives, e.g. invalid HTTP."""

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await plain.request_handler(request)
            except web.HTTPException as error:
                # aiohttp raises it before any middleware, for an `Expect` header that it does not support.
                return error_response(error)

        return _Server(handle, request_factory=plain.request_factory)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp accepts None, its own runner passes it
            keepalive_timeout=IDLE_TIMEOUT_S,
            max_line_size=HEADER_MAX_BYTES,
            max_field_size=HEADER_MAX_BYTES,
        )


class _Connection(web.RequestHandler):
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See `RequestHandler`."""
        del message  # it quotes the request, which may hold a key
        if request.writer.output_size > 0:
            # A part of another response was already sent on this connection.
            raise ConnectionError("a response has already started")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("request.crashed", exc_info=exc)
        else:
            _log.info("request.malformed", status=status)
        response = status_response(status)
        response.force_close()
        return response
