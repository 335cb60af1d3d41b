"""Keeps the bytes of a response as the socket has received them, until a caller takes over the connection.

aiohttp's parser states what it has read of a chunked body, but not at which byte of the framing it is.
"""

import asyncio
import re
from functools import partial
from typing import Any, TypeVar

import aiohttp
from aiohttp.client_proto import ResponseHandler

DOWNLOAD_BUFFER_BYTES = 256 * 1024
"""Bytes that the event loop reads at once; aiohttp's own 64 KiB pauses the socket four times as often."""
RECORDED_MAX_BYTES = 3 * 1024 * 1024
"""Nothing is kept of a response of which more has arrived: its body is not taken over any more."""
_HEAD = re.compile(rb"HTTP/1\.[0-9] ([0-9])[0-9][0-9][^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n")
_INTERIM = b"1"

Connector = TypeVar("Connector", bound=aiohttp.TCPConnector)


class RecordingHandler(ResponseHandler):
    """aiohttp's protocol of one connection, which also records the response to the last request."""

    recorded: bytearray | None = None
    """What has arrived of the response; None if it is not recorded."""

    def set_response_params(self, **options: Any) -> None:
        """Starts to record if the response may be a download. aiohttp calls this before it sends a request."""
        self.recorded = bytearray() if options.get("read_bufsize") == DOWNLOAD_BUFFER_BYTES else None
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Records the bytes of the socket."""
        if self.recorded is not None:
            self.recorded += data
            if len(self.recorded) > RECORDED_MAX_BYTES:
                self.recorded = None
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forgets what was recorded."""
        self.recorded = None
        super().connection_lost(exc)


def record_downloads(connector: Connector) -> Connector:
    """Lets the new connections of a connector record their downloads. Returns the connector."""
    # aiohttp has no setting for the protocol of its connections.
    connector._factory = partial(_handler, asyncio.get_running_loop())  # noqa: SLF001
    return connector


def _handler(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return RecordingHandler(loop)


def stop_recording(protocol: object) -> None:
    """Forgets what was recorded of a response whose body will not be taken over."""
    if isinstance(protocol, RecordingHandler):
        protocol.recorded = None


def recorded_body(protocol: object) -> bytearray | None:
    """Returns what has arrived behind the head of the response, with its framing. Nothing is recorded afterwards.

    Returns:
        None if the response was not recorded, or its head has another form than servers send.
    """
    recorded = protocol.recorded if isinstance(protocol, RecordingHandler) else None
    stop_recording(protocol)
    at = 0
    while recorded is not None and (head := _HEAD.match(recorded, at)):
        at = head.end()
        if head[1] != _INTERIM:
            return recorded[at:]
    return None
