"""A real S3-speaking server in a process of its own, and a proxy before it that refuses, loses or alters on demand."""

import http.client
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from export_worker.s3.client import S3Client, build_client

REGION = "us-east-1"

_SERVER = Path(__file__).with_name("s3_process.py")


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of an empty server. It ends with the block, and with the test process."""
    with subprocess.Popen(
        [sys.executable, str(_SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        line = next(line for line in process.stdout if line.startswith("listening on "))
        yield f"http://127.0.0.1:{line.split()[-1]}"
        process.stdin.close()


@contextmanager
def s3_credentials() -> Iterator[None]:
    """Credentials where boto3's chain finds them, and nothing of this machine's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        yield


@contextmanager
def s3_client(endpoint_url: str, *, attempts: int = 2) -> Iterator[S3Client]:
    """A client as the worker builds it."""
    client = build_client(REGION, endpoint_url, 16, attempts=attempts)
    yield client
    client.close()


def new_bucket(client: Any) -> str:
    """A bucket that no other test knows."""
    name = f"test-{uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return name


@dataclass(frozen=True)
class Call:
    """One request that reached the proxy."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def name(self) -> str:
        """As boto3 calls it."""
        names = {
            ("PUT", False): "put_object",
            ("PUT", True): "upload_part",
            ("POST", False): "create_multipart_upload",
            ("POST", True): "complete_multipart_upload",
            ("DELETE", False): "delete_object",
            ("DELETE", True): "abort_multipart_upload",
            ("HEAD", False): "head_object",
            ("GET", False): "list_multipart_uploads",
            ("GET", True): "list_parts",
        }
        return names[self.method, "uploadId" in self.query]

    @property
    def checksums(self) -> set[str]:
        """The algorithms that its head speaks of, and `MD5`."""
        prefix = "x-amz-checksum-"
        named = {name.removeprefix(prefix) for name in self.headers if name.startswith(prefix)}
        named |= {self.headers.get(prefix + "algorithm", "")} | ({"md5"} if "content-md5" in self.headers else set())
        return {name.upper() for name in named - {"", "algorithm", "mode", "type"}}

    @property
    def has_checksum(self) -> bool:
        """Whether it speaks of one of those that S3 keeps, which not every store knows."""
        return bool(self.checksums - {"MD5"})


@dataclass(frozen=True)
class Refusal:
    """An error in S3's form."""

    status: int
    code: str


@dataclass(frozen=True)
class Altered:
    """The server's answer, with these headers (lower case); an empty one is dropped."""

    headers: dict[str, str]


@dataclass(frozen=True)
class Lost:
    """The server acts, and the connection closes without its answer."""


@dataclass(frozen=True)
class Damaged:
    """One bit of the body is another when it arrives."""


Rule = Callable[[Call], Refusal | Altered | Lost | Damaged | None]


@dataclass
class S3Proxy:
    """What passes before the server: `rule` may step in for each call; `calls` are those that came."""

    upstream: str
    rule: Rule = lambda _: None
    calls: list[Call] = field(default_factory=list)
    dropped: frozenset[str] = frozenset()
    """Headers (lower case) that do not pass, as before a store that does not know them."""
    endpoint_url: str = ""

    def reset(self) -> None:
        """Forget what came, and step in no more."""
        self.rule = lambda _: None
        self.calls = []

    def names(self) -> list[str]:
        """Names of all calls so far, in order."""
        return [call.name for call in self.calls]


@contextmanager
def s3_proxy(upstream: str) -> Iterator[S3Proxy]:
    """A running proxy before the server at `upstream`."""
    proxy = S3Proxy(upstream)

    class Handler(_Handler):
        behind = proxy

    with _Server(("127.0.0.1", 0), Handler) as server:
        proxy.endpoint_url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A worker that is killed leaves its connections without a word; nothing else is passed over."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    behind: S3Proxy
    protocol_version = "HTTP/1.1"
    timeout = 2  # an idle kept-alive connection must not hold up the end of a test

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.command, parts.path, parse_qs(parts.query, keep_blank_values=True), headers)
        self.behind.calls.append(call)
        action = self.behind.rule(call)
        if isinstance(action, Refusal):
            self._answer(action.status, {"content-type": "application/xml"}, _error_body(action.code))
            return
        if isinstance(action, Damaged):
            body = body[:-1] + bytes([body[-1] ^ 1])
        status, answered, content = self._forward(body)
        if isinstance(action, Lost):
            self.close_connection = True
            return
        if isinstance(action, Altered):
            answered = {name: value for name, value in (answered | action.headers).items() if value}
        self._answer(status, answered, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815  # http.server looks for these names

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.behind.upstream.removeprefix("http://"))
        hidden = self.behind.dropped | {"content-length"}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in hidden}
        connection.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, content

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        dropped = {"connection", "date", "server", "transfer-encoding"}
        length = headers.pop("content-length", None)
        self.send_response(status)
        for name, value in headers.items():
            if name not in dropped:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length if self.command == "HEAD" and length else len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        """Say nothing."""


def _error_body(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants</Message></Error>".encode()
