"""A small and fast store for benchmarks: the calls of S3 that a small export makes, with its objects in memory.

It checks no signature. It runs in its own process, so that its cost is not part of what is measured.
"""

import asyncio
import sys
from collections.abc import Mapping
from hashlib import md5
from urllib.parse import urlsplit

EMPTY_LIST = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'
NO_UPLOADS = (
    b'<?xml version="1.0"?><ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>'
)
EXISTS = b"<?xml version='1.0'?><Error><Code>PreconditionFailed</Code><Message>the key exists</Message></Error>"
REASONS = {200: "OK", 204: "No Content", 404: "Not Found", 412: "Precondition Failed"}
KEPT = ("x-amz-meta-", "x-amz-checksum-", "content-type")

objects: dict[str, tuple[bytes, dict[str, str]]] = {}


class Connection(asyncio.Protocol):
    """Answers the requests of one connection, one after the other."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._promised = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._take_request():
            pass

    def _take_request(self) -> bool:
        head_end = self._received.find(b"\r\n\r\n") + 4
        if head_end < 4:
            return False
        first, *lines = self._received[: head_end - 4].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        end = head_end + int(headers.get("content-length", 0))
        if len(self._received) < end:
            if "expect" in headers and not self._promised:
                self._promised = True
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return False
        self._promised = False
        body = bytes(self._received[head_end:end])
        del self._received[:end]
        method, target, _ = first.split(" ")
        self._transport.write(answer(method, target, headers, body))
        return True


def answer(method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    url = urlsplit(target)
    if method == "PUT":
        return put(url.path, headers, body)
    if method == "HEAD":
        found = objects.get(url.path)
        return response(404) if found is None else response(200, found[1], length=len(found[0]))
    if method == "GET":
        return response(200, body=NO_UPLOADS if "uploads" in url.query else EMPTY_LIST)
    objects.pop(url.path, None)
    return response(204)


def put(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    if "if-none-match" in headers and path in objects:
        return response(412, body=EXISTS)
    kept = {name: value for name, value in headers.items() if name.startswith(KEPT)}
    etag = {"etag": f'"{md5(body, usedforsecurity=False).hexdigest()}"'}
    objects[path] = body, kept | etag
    checksums = {name: value for name, value in kept.items() if name.startswith("x-amz-checksum-")}
    return response(200, checksums | etag)


def response(
    status: int, headers: Mapping[str, str] | None = None, body: bytes = b"", length: int | None = None
) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", f"content-length: {len(body) if length is None else length}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
