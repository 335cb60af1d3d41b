"""Sends a file as the scenario frames it, and breaks off, ends early or stalls where a fault says so."""

import asyncio
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aiohttp import HttpVersion11, web

from export_worker.simulator.answers import break_off
from export_worker.simulator.files import FileSpec, content, size_bytes
from export_worker.simulator.ranges import changed, start_asked, version_of
from export_worker.simulator.scenario import Fault, Framing, Validator
from export_worker.simulator.world import RECORD

READ_BEFORE_RESET_S = 0.05
"""A reset throws away what the client has not read; without a pause it would not even see the head."""

_LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing resets the connection instead of ending it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a file is to be sent.

    Args:
        framing: How the end is marked.
        bytes_per_s: Pace; None means as fast as it goes.
        fault: `cut`, `short`, `changed` or a `slow` that stalls; others change nothing here.
        ranges: Whether it goes on in the middle of a file; only one of known length can.
        validator: What the head says of the file's version.
    """

    framing: Framing = "length"
    bytes_per_s: float | None = None
    fault: Fault | None = None
    ranges: bool = True
    validator: Validator = "etag"


class _UnframedResponse(web.StreamResponse):
    """A body that ends with the connection: neither length nor chunks, as HTTP/1.0 servers and some proxies send it."""

    _length_check = False  # or aiohttp would chunk whatever has no length


async def send_file(request: web.Request, spec: FileSpec, delivery: Delivery) -> web.StreamResponse:
    """Stream one file, or what a range asks of it."""
    fault = delivery.fault
    if fault is not None and fault.fault == "changed":
        spec = changed(spec)
    length_bytes = size_bytes(spec)
    version = version_of(spec, delivery.validator)
    start = start_asked(request, version) if delivery.ranges and delivery.framing == "length" else None
    if start is not None and start >= length_bytes:
        return web.Response(status=416, headers=version | {"Content-Range": f"bytes */{length_bytes}"})
    response = _head(request, delivery, length_bytes, start)
    response.headers.update(version)
    await response.prepare(request)
    first = start or 0
    turn_bytes = _turning_point(fault, length_bytes)
    left_bytes = None if turn_bytes is None else max(0, turn_bytes - first)
    body = _Body(request, response, delivery)
    await body.send(split_at(content(spec, first), left_bytes), left_bytes)
    if fault is not None and fault.fault == "cut":
        await _reset(request, delivery.framing)
    return response


def split_at(pieces: Iterable[bytes], offset: int | None) -> Iterator[bytes]:
    """The same bytes, with a piece that ends at the offset."""
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


def _turning_point(fault: Fault | None, length_bytes: int) -> int | None:
    """Where the body goes wrong, in bytes; None when it does not."""
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
    """Sends what follows a head, and keeps count of it where the request is recorded."""

    request: web.Request
    response: web.StreamResponse
    delivery: Delivery

    async def send(self, pieces: Iterable[bytes], turn_bytes: int | None) -> None:
        """All pieces, or as many as stand before the turn."""
        sent_bytes = 0
        for piece in pieces:
            if sent_bytes == turn_bytes and self.delivery.fault is not None:
                if self.delivery.fault.fault != "slow":
                    return
                await asyncio.sleep(self.delivery.fault.wait_s)
            # Before it is sent: who has the last piece has the file, and would not wait any more.
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
    """Break off so that the client can tell it from an end: a body without framing needs a reset for that."""
    if framing == "close" and request.transport is not None:
        await asyncio.sleep(READ_BEFORE_RESET_S)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    break_off(request)
