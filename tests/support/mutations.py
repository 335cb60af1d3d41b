"""Changes valid input at random places, with values that once broke a parser. The same seed gives the same changes."""

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

ODD_VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", " ", "0", "\x00", "\ud800",
    "\u202e\ufeff", "a" * 5000, "../..", "%00%zz", "FINISH", "ERROR", "SUCCESS", [], {}, [[]], [None], [{}], {"": ""},
    {"id": None}, [1, "a", None], {"message": {"code": 1}}, {"extensions": 3}, "2020-13-45 99:99:99", "9" * 400,
)  # fmt: skip
ODD_BYTES = (
    b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\t", b" ", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\x80", b":", b",",
    b";", b'"', b"'", b"{", b"[", b"<", b"<html>", b"-1", b"99999999999999999999999", b"\xd9\xa3", b"chunked", b"gzip",
    b"identity", b"zstd", b"deflate", b"bytes", b"*", b"=", b"%", b"xn--", b"[::1", b"//", b"http://", b"\xe4\xb8\xad",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"Location: http://[\r\n",
    b"Content-Range: bytes 9-0/*\r\n", b"Retry-After: 31 Feb 99999\r\n", b"Content-Type: a/b; charset=\xff\r\n",
    b"Set-Cookie: a=\x01; Expires=x\r\n", b"\x1f\x8b\x08", b"(\xb5/\xfd",
)  # fmt: skip


def changed_bytes(random: Random, data: bytes, most: int = 4) -> bytes:
    """Returns the data with up to `most` changes: bytes are inserted, removed, replaced, repeated, or cut off."""
    for _ in range(random.randint(1, most)):
        start = random.randint(0, len(data))
        end = min(len(data), start + random.choice((0, 1, 1, 2, 4, 20)))
        match random.randrange(5):
            case 0:
                data = data[:start] + random.choice(ODD_BYTES) + data[start:]
            case 1:
                data = data[:start] + data[end:]
            case 2:
                data = data[:start] + random.choice(ODD_BYTES) + data[end:]
            case 3:
                data = data[:end] + data[start:]
            case _:
                data = data[:start] if random.random() < 0.2 else data[:start] + random.randbytes(1) + data[end:]
    return data


def changed_value(random: Random, value: Any) -> Any:
    """Returns a JSON value in which one part is replaced, removed, or added."""
    changed = copy.deepcopy([value])
    parents = list(_containers(changed))
    parent = random.choice(parents)
    keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
    if not keys or (parent is not changed and random.random() < 0.1):
        _add(parent, random.choice(ODD_VALUES))
    elif parent is not changed and random.random() < 0.2:
        del parent[random.choice(keys)]
    else:
        parent[random.choice(keys)] = random.choice(ODD_VALUES)
    return changed[0]


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _containers(part)


def _add(parent: Any, value: Any) -> None:
    if isinstance(parent, dict):
        parent["odd"] = value
    else:
        parent.append(value)


@asynccontextmanager
async def answering_in_turn(answers: Sequence[bytes]) -> AsyncIterator[str]:
    """Serves each answer once, as it is, and closes the connection after it. Further requests get the last answer."""
    left = list(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
