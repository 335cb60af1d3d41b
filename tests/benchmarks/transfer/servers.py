"""A source and a sink that are faster than any mover: the source sends pages of one file, the sink discards all bytes.

Over plain HTTP neither copies a body: the source uses sendfile, and the sink uses MSG_TRUNC, with which the kernel
drops received bytes. Over TLS both process every byte. Run as `python servers.py ROLE [CERTIFICATE]`: it prints its
port, and exits at the end of its standard input. It needs only Python and Linux.
"""

import itertools
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO
from urllib.parse import SplitResult, parse_qs, urlsplit

BLOCK_BYTES = 32 * 2**20
"""The size of the source's file. A longer body repeats it."""
PIECE_BYTES = 1 << 20
ETAG = '"0123456789abcdef0123456789abcdef"'
Head = dict[str, str]
Handler = Callable[[socket.socket, BinaryIO, str, str, Head], bool]

_uploads = itertools.count(1)
_counting = threading.Lock()
_stored: defaultdict[str, int] = defaultdict(int)
"""The number of received bytes for each key, of complete or incomplete objects. Some movers read it at the end."""
_metadata: dict[str, list[str]] = {}
"""The headers with the metadata of each key."""


def read_head(stream: BinaryIO) -> tuple[str, str, Head] | None:
    """Returns method, target, and header fields with lower-case names; None at the end of the connection."""
    line = stream.readline().decode("latin-1")
    if not line:
        return None
    method, target, _ = line.split(" ", 2)
    fields: Head = {}
    while (line := stream.readline().decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return method, target, fields


class Block:
    """The source's bytes, in a file in memory."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)  # noqa: PTH112, SIM115
        # Random bytes alone sometimes begin like a page, which the engine refuses.
        self.file.write(b"id,name\n" + os.urandom(BLOCK_BYTES - 8))
        self.file.flush()
        self.data = memoryview(os.pread(self.file.fileno(), BLOCK_BYTES, 0))

    def send(self, connection: socket.socket, begin: int, length: int) -> None:
        """Sends a range of the endlessly repeated block."""
        while length:
            at = begin % BLOCK_BYTES
            count = min(length, BLOCK_BYTES - at)
            if isinstance(connection, ssl.SSLSocket):
                count = min(count, PIECE_BYTES)
                connection.sendall(self.data[at : at + count])
            else:
                count = os.sendfile(connection.fileno(), self.file.fileno(), at, count)
            begin, length = begin + count, length - count


def source(block: Block) -> Handler:
    """Returns the handler of `GET /name?bytes=N&framing=length|chunked|close`, which supports Range."""

    def handle(connection: socket.socket, _: BinaryIO, method: str, target: str, fields: Head) -> bool:
        query = parse_qs(urlsplit(target).query)
        total, framing = int(query["bytes"][0]), query.get("framing", ["length"])[0]
        begin, end, status = 0, total, "200 OK"
        head = ["Content-Type: text/csv", 'ETag: "bench"', "Last-Modified: Sun, 22 Nov 2026 03:00:00 GMT"]
        if requested := re.fullmatch(r"bytes=(\d+)-(\d*)", fields.get("range", "")):
            begin, end = int(requested[1]), min(total, int(requested[2]) + 1) if requested[2] else total
            status = "206 Partial Content"
            head.append(f"Content-Range: bytes {begin}-{end - 1}/{total}")
        framings = {"chunked": "Transfer-Encoding: chunked", "close": "Connection: close"}
        head.append(framings.get(framing, f"Content-Length: {end - begin}\r\nAccept-Ranges: bytes"))
        connection.sendall("\r\n".join([f"HTTP/1.1 {status}", *head, "", ""]).encode())
        if method == "HEAD":
            return True
        if framing != "chunked":
            block.send(connection, begin, end - begin)
            return framing == "length"
        for at in range(begin, end, PIECE_BYTES):
            count = min(PIECE_BYTES, end - at)
            connection.sendall(f"{count:x}\r\n".encode())
            block.send(connection, at, count)
            connection.sendall(b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        return True

    return handle


def drop(connection: socket.socket, stream: BinaryIO, length: int, buffer: memoryview) -> None:
    """Receives and discards a number of bytes."""
    while length and (ready := stream.peek(1)):  # type: ignore[attr-defined]  # a BufferedReader has it
        length -= len(stream.read(min(length, len(ready))))
        if length:
            length = _drop_unread(connection, length, buffer)


def _drop_unread(connection: socket.socket, length: int, buffer: memoryview) -> int:
    """Discards bytes that are not in the stream's buffer. A call requests all, so the kernel wakes us rarely."""
    plain = not isinstance(connection, ssl.SSLSocket)
    flags = socket.MSG_TRUNC | socket.MSG_WAITALL if plain else 0
    while length:
        count = connection.recv_into(buffer, min(length, len(buffer)), flags)
        if not count:
            raise ConnectionError("cut")
        length -= count
    return 0


def drop_chunks(connection: socket.socket, stream: BinaryIO, buffer: memoryview) -> None:
    """Discards a chunked body, which boto3 sends if a checksum follows it."""
    while True:
        count = int(stream.readline().split(b";")[0], 16)
        if not count:
            while stream.readline().rstrip():
                pass
            return
        _drop_in_stream(stream, count + 2, buffer)


def _drop_in_stream(stream: BinaryIO, length: int, buffer: memoryview) -> None:
    while length:
        length -= stream.readinto(buffer[:length])  # type: ignore[attr-defined]  # a BufferedReader has it


def sink(*, returns_checksums: bool) -> Handler:
    """Returns a handler with the part of S3 that uploads need.

    Args:
        returns_checksums: It answers with the checksum of the request.
    """
    buffers = threading.local()

    def handle(connection: socket.socket, stream: BinaryIO, method: str, target: str, fields: Head) -> bool:
        if not hasattr(buffers, "buffer"):
            buffers.buffer = memoryview(bytearray(PIECE_BYTES))
        if fields.get("expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in fields.get("transfer-encoding", ""):
            drop_chunks(connection, stream, buffers.buffer)
        else:
            drop(connection, stream, int(fields.get("content-length", "0")), buffers.buffer)
        seen = fields if returns_checksums else {name: fields[name] for name in fields if "checksum" not in name}
        connection.sendall(_answer(method, urlsplit(target), seen))
        return True

    return handle


def _answer(method: str, target: SplitResult, fields: Head) -> bytes:
    status, body, query = "200 OK", "", target.query
    if method in {"PUT", "POST"} and "uploadId" not in query:
        _stored[target.path] = 0
        _metadata[target.path] = [
            f"{name}: {value}" for name, value in fields.items() if name.startswith("x-amz-meta-")
        ]
    if method == "PUT":
        size = int(fields.get("x-amz-decoded-content-length", fields.get("content-length", "0")))
        with _counting:  # the parts of a file arrive in several threads
            _stored[target.path] += size
    if method == "POST" and "uploadId" in query:
        body = f"<CompleteMultipartUploadResult><ETag>{ETAG}</ETag></CompleteMultipartUploadResult>"
    elif method == "POST":
        name = "InitiateMultipartUploadResult"
        body = f"<{name}><Bucket>b</Bucket><Key>k</Key><UploadId>{next(_uploads)}</UploadId></{name}>"
    elif method == "DELETE":
        status = "204 No Content"
    elif method == "GET" or not _stored.get(target.path):
        status = "200 OK" if method == "PUT" else "404 Not Found"
    checksums = [f"{name}: {value}" for name, value in fields.items() if name.startswith("x-amz-checksum-")]
    head = [f"ETag: {ETAG}", "Content-Type: application/xml", *checksums]
    length = len(body)
    if method == "HEAD":
        length = _stored.get(target.path, 0)
        head += _metadata.get(target.path, [])
    head.append("Last-Modified: Sun, 22 Nov 2026 03:00:00 GMT")
    return "\r\n".join([f"HTTP/1.1 {status}", *head, f"Content-Length: {length}", "", body]).encode()


def serve_connection(connection: socket.socket, context: ssl.SSLContext | None, handler: Handler) -> None:
    """Serves one connection until it ends."""
    with suppress(OSError, ValueError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = context.wrap_socket(connection, server_side=True) if context else connection
        with wrapped, wrapped.makefile("rb") as stream:
            while (head := read_head(stream)) and handler(wrapped, stream, *head):
                pass


@contextmanager
def running(role: str, certificate: str | None = None) -> Iterator[str]:
    """Starts a source or a sink as a separate process, and yields its URL.

    Args:
        role: `source`, `sink`, or `plain-sink`, which returns no checksums.
        certificate: The path of a file with certificate and key; None for plain HTTP.
    """
    command = [sys.executable, __file__, role, *([certificate] if certificate else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("the process has no pipes")
        yield f"{'https' if certificate else 'http'}://localhost:{int(process.stdout.readline())}"
        process.stdin.close()


def main() -> None:
    """Serves until the end of standard input."""
    role = sys.argv[1]
    handler = source(Block()) if role == "source" else sink(returns_checksums=role == "sink")
    context = None
    if len(sys.argv) > 2:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_connection, args=(connection, context, handler), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(listener.getsockname()[1], flush=True)  # noqa: T201  # the parent process reads it
    sys.stdin.read()


if __name__ == "__main__":
    main()
