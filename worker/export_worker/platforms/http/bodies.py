"""Reads the body of a response, up to a limit of its length or of the time."""

import asyncio
from contextlib import suppress

import aiohttp

from export_worker.platforms.http.codings import CodingError, UnknownCodingError, body_of

ERROR_BODY_MAX_BYTES = 16 * 1024
"""Bytes that are read of an error page: the excerpt in the message is far shorter."""


async def read_up_to(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """Returns the decoded body, or its first `limit_bytes` if it is longer.

    Raises aiohttp's errors, and those of `codings.body_of`.
    """
    body = bytearray()
    await _read_into(body, response, limit_bytes)
    return bytes(body[:limit_bytes])


async def read_error_page(response: aiohttp.ClientResponse, within_s: float) -> bytes:
    """Returns the beginning of a body for a message: what arrives within this time.

    The response has a timeout of its own for each pause, which ends the wait as well. Raises aiohttp's other errors.
    """
    body = bytearray()
    # The page may stall, be cut or have an unknown coding: the error that it belongs to is more important.
    with suppress(TimeoutError, CodingError, UnknownCodingError):
        async with asyncio.timeout(within_s):
            await _read_into(body, response, ERROR_BODY_MAX_BYTES)
    return bytes(body[:ERROR_BODY_MAX_BYTES])


async def _read_into(body: bytearray, response: aiohttp.ClientResponse, limit_bytes: int) -> None:
    async for piece in body_of(response):
        body += piece
        if len(body) >= limit_bytes:
            return
