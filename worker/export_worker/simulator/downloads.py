"""Sends a file as the scenario frames it, and breaks off, ends early or stalls where a fault says so."""

import asyncio
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aiohttp import HttpVersion11, web

from export_worker.simulator.answers import break_off
from export_worker.simulator.files import FileSpec, content, size_bytes
from export_worker.simulator.scenario import Fault, Framing

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
        fault: `cut`, `short` or a `slow` that stalls; others change nothing here.
    """

    framing: Framing = "length"
    bytes_per_s: float | None = None
    fault: Fault | None = None


class _UnframedResponse(web.StreamResponse):
    """A body that ends with the connection: neither length nor chunks, as HTTP/1.0 servers and some proxies send it."""

    _length_check = False  # or aiohttp would chunk whatever has no length


async def send_file(request: web.Request, spec: FileSpec, delivery: Delivery) -> web.StreamResponse:
    """Stream one file."""
    fault = delivery.fault
    length_bytes = size_bytes(spec)
    response = _head(request, delivery, length_bytes)
    await response.prepare(request)
    turn_bytes = _turning_point(fault, length_bytes)
    await _send_body(response, split_at(content(spec), turn_bytes), turn_bytes, delivery)
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


def _head(request: web.Request, delivery: Delivery, length_bytes: int) -> web.StreamResponse:
    old_client = request.version < HttpVersion11
    unframed = delivery.framing == "close" or (delivery.framing == "chunked" and old_client)
    response = _UnframedResponse() if unframed else web.StreamResponse()
    response.content_type = "text/csv"
    if unframed or (delivery.fault is not None and delivery.fault.fault == "short"):
        response.force_close()
    if delivery.framing == "length":
        response.content_length = length_bytes
    elif not unframed:
        response.enable_chunked_encoding()
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


async def _send_body(
    response: web.StreamResponse, pieces: Iterable[bytes], turn_bytes: int | None, delivery: Delivery
) -> None:
    sent_bytes = 0
    for piece in pieces:
        if sent_bytes == turn_bytes and delivery.fault is not None:
            if delivery.fault.fault != "slow":
                return
            await asyncio.sleep(delivery.fault.wait_s)
        await response.write(piece)
        sent_bytes += len(piece)
        if delivery.bytes_per_s is not None:
            await asyncio.sleep(len(piece) / delivery.bytes_per_s)


async def _reset(request: web.Request, framing: Framing) -> None:
    """Break off so that the client can tell it from an end: a body without framing needs a reset for that."""
    if framing == "close" and request.transport is not None:
        await asyncio.sleep(READ_BEFORE_RESET_S)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    break_off(request)
