"""Runs the application: as a process, until it is told to stop."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from time import monotonic

import structlog
from aiohttp import web

from export_producers.client import ExportQueue
from export_producers.gateway.app import build_app
from export_producers.gateway.auth import ApiKeys, RateLimit
from export_producers.gateway.context import CatalogCall, GatewayContext
from export_producers.gateway.problems import answer, of_status
from export_worker.errors import ConfigError

HEADER_MAX_BYTES = 8190
"""Of one line and of one field: what most servers allow."""
IDLE_S = 75.0
"""A connection that asks for nothing is closed."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What can be set.

    Args:
        api_keys: In clear.
        requests_per_second: Of each key, for long.
        burst: Of each key, at once.
        streams_max: Event streams at once.
        keep_alive_s: Between comments on a stream on which nothing happens.
        stop_s: What requests get to end when the gateway is told to stop.
    """

    host: str
    port: int
    api_keys: tuple[str, ...]
    requests_per_second: float
    burst: int
    streams_max: int
    keep_alive_s: float
    stop_s: float


def check(options: Options) -> None:
    """Refuse to let everyone in from everywhere.

    Raises:
        ConfigError: There is no key, and the address is not this machine's own; or a key is empty.
    """
    if any(not key.strip() for key in options.api_keys):
        raise ConfigError("gateway.api_keys: a key is empty")
    if not options.api_keys and not _is_loopback(options.host):
        raise ConfigError(
            f"gateway.api_keys: without a key only a loopback address is bound, and gateway.host is {options.host!r}; "
            'set one, e.g. api_keys = ["env:GATEWAY_KEY"]'
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def serve(
    options: Options,
    queue: ExportQueue,
    catalog: CatalogCall | None,
    contact: Callable[[asyncio.Event], Awaitable[None]],
) -> None:
    """Print one line with the address, then serve until SIGTERM or SIGINT; what runs then may end.

    Args:
        contact: Waits for Redis, until the event is set.

    Raises:
        ConfigError: The address cannot be bound, or must not be.
        ServiceUnreachableError: Redis cannot be reached at the start.
    """
    check(options)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # A gateway that never had its Redis is a wrong address; one that loses it later says so at /readyz.
    await contact(stop)
    await queue.list_exports(limit=1)
    async with listening(options, queue, catalog) as url:
        sys.stdout.write(f"gateway: {url}\n")
        sys.stdout.flush()
        _log.info("gateway.started", url=url, keys=len(options.api_keys))
        await stop.wait()
        _log.info("gateway.stopping")


@asynccontextmanager
async def listening(
    options: Options,
    queue: ExportQueue,
    catalog: CatalogCall | None = None,
    clock: Callable[[], float] = monotonic,
) -> AsyncIterator[str]:
    """Serve until the context is left; gives the address, without a slash at the end.

    Raises:
        ConfigError: The address cannot be bound.
    """
    parts = GatewayContext(
        queue=queue,
        keyring=ApiKeys(options.api_keys),
        rate=RateLimit(options.requests_per_second, options.burst, clock),
        catalog=catalog,
        streams_max=options.streams_max,
        keep_alive_s=options.keep_alive_s,
    )
    runner = _Runner(build_app(parts), shutdown_timeout=options.stop_s, access_log=None)
    await runner.setup()
    try:
        await _bind(runner, options)
        yield f"http://{_url_host(options.host)}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, options: Options) -> None:
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
    """The host as a URL has it; a server on all addresses is reached on this one."""
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


class _Runner(web.AppRunner):
    """Makes the server speak problems also where no application is reached: what cannot be read as HTTP."""

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await plain.request_handler(request)
            except web.HTTPException as error:
                # Raised before any middleware: an expectation that nobody can meet.
                return answer(error)

        return _Server(handle, request_factory=plain.request_factory)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None, as its runner hands it on
            keepalive_timeout=IDLE_S,
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
        del message  # quotes what was sent, and that may be a key
        if request.writer.output_size > 0:
            # A part of another answer is on its way already.
            raise ConnectionError("the answer has begun")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("request.crashed", exc_info=exc)
        else:
            _log.info("request.malformed", status=status)
        response = of_status(status)
        response.force_close()
        return response
