"""Answers without an end: a call fails after a limited number of bytes."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from export_worker.errors import StorageError
from export_worker.s3 import bounded_http
from export_worker.s3.bounded_http import ANSWER_MAX_BYTES
from export_worker.s3.client import CallLimits, build_client
from export_worker.s3.endpoints import Endpoint
from export_worker.s3.objects import Target
from export_worker.s3.settings import StorageSettings
from export_worker.s3.store import S3Store
from support.s3_server import REGION, s3_client, s3_credentials

PIECE = b"<!-- " + b"a" * 65_526 + b" -->\n"
SENT_MAX_BYTES = ANSWER_MAX_BYTES + 24 * 1024 * 1024
"""What the client may read, and what the buffers of two sockets may hold."""

ENDLESS, CHUNKED, ANNOUNCED = "", "Transfer-Encoding: chunked\r\n", "Content-Length: 99999999999\r\n"
framings = pytest.mark.parametrize(
    "framing", [ENDLESS, CHUNKED, ANNOUNCED], ids=["until close", "chunked", "announced"]
)


class EndlessServer:
    """Answers each request with a head, and then with the same bytes until the client closes the connection."""

    def __init__(self, head: str, piece: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._head = head.encode()
        self._piece = piece
        self.sent_bytes = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(ConnectionError):
                    connection.recv(65_536)
                    connection.sendall(b"HTTP/1.1 " + self._head + b"\r\n")
                    # The bound ends the test, and not the memory of the machine, if the client reads all.
                    while self.sent_bytes < 4 * SENT_MAX_BYTES:
                        connection.sendall(self._piece)
                        self.sent_bytes += len(self._piece)


@contextmanager
def endless(status: str, framing: str, piece: bytes = PIECE) -> Iterator[EndlessServer]:
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece) if framing == CHUNKED else piece
    server = EndlessServer(f"{status}\r\nContent-Type: application/xml\r\n{framing}", chunk)
    try:
        with s3_credentials():
            yield server
    finally:
        server.close()


async def error_of(url: str) -> StorageError:
    """Returns the error of a listing."""
    with s3_client(url, attempts=1) as client, ThreadPoolExecutor(1) as executor, pytest.raises(StorageError) as caught:
        await S3Store(client, executor).uploads("bucket", "e/")
    return caught.value


@framings
async def test_endless_error_is_read_up_to_a_limit_and_judged_by_its_status(framing: str) -> None:
    with endless("403 Forbidden", framing) as server:
        error = await error_of(server.url)
    assert "403, HTTP 403" in str(error)
    assert server.sent_bytes < SENT_MAX_BYTES


@framings
async def test_endless_success_fails_with_the_limit(framing: str) -> None:
    with endless("200 OK", framing) as server:
        error = await error_of(server.url)
    assert f"the response has more than {ANSWER_MAX_BYTES} bytes" in str(error)
    assert error.retryable
    assert server.sent_bytes < SENT_MAX_BYTES


async def test_error_that_never_ends_is_given_up_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes come one at a time, so that their number reaches no limit."""
    monkeypatch.setattr(bounded_http, "ANSWER_TIMEOUT_S", 0.0)
    with endless("403 Forbidden", CHUNKED, b" ") as server:
        error = await error_of(server.url)
    assert "403, HTTP 403" in str(error)


async def test_endless_head_of_an_interim_answer_is_read_up_to_a_limit() -> None:
    server = EndlessServer("100 Continue", b"a" * 65_536)
    target = Target("bucket", "e/a.csv", "e", "text/csv")
    with (
        s3_credentials(),
        s3_client(server.url, attempts=1) as client,
        ThreadPoolExecutor(1) as executor,
        pytest.raises(StorageError),
    ):
        await S3Store(client, executor).put(target, b"body")
    server.close()
    assert server.sent_bytes < SENT_MAX_BYTES


async def test_endless_answer_of_sts_is_read_up_to_a_limit() -> None:
    with endless("403 Forbidden", CHUNKED) as server:
        role = StorageSettings(role_arn="arn:aws:iam::123456789012:role/exports", sts_endpoint_url=server.url)
        client = build_client(Endpoint(REGION, server.url), 1, limits=CallLimits(attempts=1), settings=role)
        with ThreadPoolExecutor(1) as executor, pytest.raises(StorageError, match="does not come from S3"):
            await S3Store(client, executor).uploads("bucket", "e/")
        client.close()
    assert server.sent_bytes < SENT_MAX_BYTES


@pytest.mark.parametrize("cut", [b"", b"10\r\nhalf"], ids=["head only", "chunk"])
async def test_body_that_is_cut_is_an_error_of_the_connection(cut: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, s3_credentials():

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + cut)

        thread = threading.Thread(target=serve)
        thread.start()
        error = await error_of(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert "S3 cannot be reached or did not answer (ConnectionClosedError)" in str(error)
