"""Sends a file with the framing of the scenario, and cuts, shortens or stalls it if a fault asks for that."""

import asyncio
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aiohttp import HttpVersion11, web

from export_worker.simulator.answers import abort_connection
from export_worker.simulator.files import FileSpec, content, size_bytes
from export_worker.simulator.ranges import changed, requested_start, version_headers
from export_worker.simulator.scenario import Fault, Framing, Validator
from export_worker.simulator.world import RECORD

READ_BEFORE_RESET_S = 0.05
"""A reset discards data that the client has not read. Without this pause the client would not read even the head."""

_LINGER_ZERO = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of zero: closing the socket sends a reset instead of a regular end."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a file is sent.

    Args:
        framing: How the response marks its end.
        bytes_per_s: The maximum rate; None means no limit.
        fault: `cut`, `short`, `changed` or a `slow` with `after_bytes`. Other faults have no effect here.
        ranges: Whether range requests are answered. Only a file sent with its length can be requested in ranges.
        validator: The header that identifies the file's version.
    """

    framing: Framing = "length"
    bytes_per_s: float | None = None
    fault: Fault | None = None
    ranges: bool = True
    validator: Validator = "etag"


class _UnframedResponse(web.StreamResponse):
    """A body that ends with the connection, without length or chunks, as HTTP/1.0 servers and some proxies send it."""

    _length_check = False  # otherwise aiohttp sends a body without a length in chunks


async def send_file(request: web.Request, spec: FileSpec, delivery: Delivery) -> web.StreamResponse:
    """Streams a file, or the range of it that the request asks for."""
    fault = delivery.fault
    if fault is not None and fault.fault == "changed":
        spec = changed(spec)
    length_bytes = size_bytes(spec)
    version = version_headers(spec, delivery.validator)
    start = requested_start(request, version) if delivery.ranges and delivery.framing == "length" else None
    if start is not None and start >= length_bytes:
        return web.Response(status=416, headers=version | {"Content-Range": f"bytes */{length_bytes}"})
    response = _head(request, delivery, length_bytes, start)
    response.headers.update(version)
    await response.prepare(request)
    first = start or 0
    fault_offset = _fault_offset(fault, length_bytes)
    until_fault_bytes = None if fault_offset is None else max(0, fault_offset - first)
    body = _Body(request, response, delivery)
    await body.send(split_at(content(spec, first), until_fault_bytes), until_fault_bytes)
    if fault is not None and fault.fault == "cut":
        await _reset(request, delivery.framing)
    return response


def split_at(pieces: Iterable[bytes], offset: int | None) -> Iterator[bytes]:
    """Yields the same bytes, in pieces of which one ends at the offset."""
    position = 0
    for piece in pieces:
        if offset is not None and position < offset < position + len(piece):
            yield piece[: offset - position]
            yield piece[offset - position :]
        else:
            yield piece
        position += len(piece)


def _head(request: web.Request, delivery: Delivery, length_bytes: int, start: int | None) -> web.StreamResponse:
    old_client = request.version < HttpVersion11
    unframed = delivery.framing == "close" or (delivery.framing == "chunked" and old_client)
    response = _UnframedResponse() if unframed else web.StreamResponse()
    response.content_type = "text/csv"
    if unframed or (delivery.fault is not None and delivery.fault.fault == "short"):
        response.force_close()
    if delivery.framing == "length":
        response.content_length = length_bytes - (start or 0)
        response.headers["Accept-Ranges"] = "bytes" if delivery.ranges else "none"
    elif not unframed:
        response.enable_chunked_encoding()
    if start is not None:
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {start}-{length_bytes - 1}/{length_bytes}"
    return response


def _fault_offset(fault: Fault | None, length_bytes: int) -> int | None:
    """Returns the offset in the file at which the fault takes effect; None if it does not change the body."""
    if fault is None:
        return None
    match fault.fault:
        case "cut" | "short":
            return length_bytes // 2 if fault.after_bytes is None else min(fault.after_bytes, length_bytes)
        case "slow":
            return fault.after_bytes
        case _:
            return None


@dataclass(frozen=True, slots=True)
class _Body:
    """Sends a response body, and counts the sent bytes in the record of the request."""

    request: web.Request
    response: web.StreamResponse
    delivery: Delivery

    async def send(self, pieces: Iterable[bytes], until_fault_bytes: int | None) -> None:
        """Sends all pieces, or those before the fault. A `slow` fault pauses, then the rest follows."""
        sent_bytes = 0
        for piece in pieces:
            if sent_bytes == until_fault_bytes and self.delivery.fault is not None:
                if self.delivery.fault.fault != "slow":
                    return
                await asyncio.sleep(self.delivery.fault.wait_s)
            # The pause comes before the write: a client that has the last piece does not wait for a later pause.
            if self.delivery.bytes_per_s is not None:
                await asyncio.sleep(len(piece) / self.delivery.bytes_per_s)
            await self.response.write(piece)
            sent_bytes += len(piece)
            self._count(len(piece))

    def _count(self, sent_bytes: int) -> None:
        record = self.request.get(RECORD)
        if record is not None:
            record.sent_bytes += sent_bytes


async def _reset(request: web.Request, framing: Framing) -> None:
    """Aborts the connection, with a reset if the body has no framing: any other end looks like the body's end."""
    if framing == "close" and request.transport is not None:
        await asyncio.sleep(READ_BEFORE_RESET_S)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    abort_connection(request)
