"""A server that answers every request with the same bytes, or never answers."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

HTML = b"<html><body><h1>Welcome</h1></body></html>"


def http(status: str, body: bytes, head: bytes = b"") -> bytes:
    """Returns the bytes of an HTTP response."""
    line = b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %d\r\n" % (status.encode(), len(body))
    return line + head + b"\r\n" + body


@asynccontextmanager
async def answering(answer: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serves a response, and yields the URL of the server.

    Args:
        answer: The response to every request. None: the server keeps the connection open and sends nothing. Empty: the
            server closes the connection.
        tls: Serve TLS with this context.
    """
    open_ends: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ends.append(writer)
        if answer is None:
            return
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while answer and (head := await reader.readuntil(b"\r\n\r\n")):
                if b"100-continue" in head.lower():
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await reader.readexactly(_length(head))
                writer.write(b"" if head.startswith(b"HEAD ") else answer)
                if head.startswith(b"HEAD "):
                    writer.write(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_ends:
            writer.close()


def _length(head: bytes) -> int:
    lines = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    return next((int(value) for name, _, value in lines if name == b"content-length"), 0)
