"""An S3 server in a separate process, and a proxy in front of it that refuses, loses or changes calls on demand."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from export_worker.s3.client import CallLimits, S3Client, build_client
from export_worker.s3.endpoints import Endpoint
from support.certificates import Certificate

REGION = "us-east-1"

SKEW_MAX_S = 900.0
"""S3's limit for the difference between its clock and the time of a request (Amazon S3 API Reference, error codes)."""

_SERVER = Path(__file__).with_name("s3_process.py")


class Forks:
    """The process that forks the servers. It starts with the first one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> tuple[int, int]:
        """Starts a server. Returns its port and process id."""
        with self._lock:
            if self._process is None:
                command = [sys.executable, str(_SERVER)]
                pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
                self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, text=True, bufsize=1)
            requests, lines = self._process.stdin, self._process.stdout
            assert requests is not None
            assert lines is not None
            requests.write("start\n")
            *_, port, process_id = next(line for line in lines if line.startswith("listening on ")).split()
        return int(port), int(process_id)

    def stop(self) -> None:
        """Ends the process and all its servers."""
        with self._lock:
            if self._process is not None:
                self._process.communicate()
            self._process = None


FORKS = Forks()


@contextmanager
def s3_server() -> Iterator[str]:
    """Yields the endpoint of an empty server. It stops with the block and with the test process."""
    port, process_id = FORKS.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.kill(process_id, signal.SIGKILL)


@contextmanager
def s3_credentials() -> Iterator[None]:
    """Sets credentials that boto3's chain finds, and hides those of this machine."""
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
    """Yields a client that is built as the worker builds it."""
    client = build_client(Endpoint(REGION, endpoint_url), 16, limits=CallLimits(attempts=attempts))
    yield client
    client.close()


def new_bucket(client: Any) -> str:
    """Creates a bucket that no other test uses; returns its name."""
    name = f"test-{uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return name


def file_names(client: Any, bucket: str) -> list[str]:
    """Returns the keys of all objects, without what is before the last slash."""
    listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return sorted(item["Key"].rpartition("/")[2] for item in listed)


@dataclass(frozen=True)
class Call:
    """One request that reached the proxy."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def name(self) -> str:
        """The name of boto3's method for the call."""
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
        return "list_objects_v2" if self.is_check else names[self.method, "uploadId" in self.query]

    @property
    def is_check(self) -> bool:
        """Whether it is the call with which a worker checks its store."""
        return "list-type" in self.query

    @property
    def checksums(self) -> set[str]:
        """The checksum algorithms in its headers; `MD5` for Content-MD5."""
        prefix = "x-amz-checksum-"
        named = {name.removeprefix(prefix) for name in self.headers if name.startswith(prefix)}
        named |= {self.headers.get(prefix + "algorithm", "")} | ({"md5"} if "content-md5" in self.headers else set())
        return {name.upper() for name in named - {"", "algorithm", "mode", "type"}}

    @property
    def has_checksum(self) -> bool:
        """Whether it has a checksum that S3 stores, which not every store supports."""
        return bool(self.checksums - {"MD5"})


@dataclass(frozen=True)
class Refusal:
    """The proxy answers with an error of S3; the server is not called."""

    status: int
    code: str


@dataclass(frozen=True)
class Altered:
    """The proxy changes headers of the server's response (lower case); a header with an empty value is removed."""

    headers: dict[str, str]


@dataclass(frozen=True)
class Rewritten:
    """The proxy replaces a pattern in the body of the server's response."""

    pattern: bytes
    by: bytes


@dataclass(frozen=True)
class Lost:
    """The server executes the call, and the proxy closes the connection without a response."""


@dataclass(frozen=True)
class Damaged:
    """The proxy flips one bit of the body."""


Action = Refusal | Altered | Rewritten | Lost | Damaged
Rule = Callable[[Call], Action | None]
"""Decides what the proxy does with a call; None forwards it unchanged."""


@dataclass
class S3Proxy:
    """The proxy's behaviour and what it has seen.

    Args:
        upstream: Endpoint of the server.
        rule: Decides about each call.
        calls: All calls so far.
        dropped: Headers (lower case) that are not forwarded, as if the store did not know them.
        clock_ahead_s: How far the store's clock is ahead of the clients'. Like S3, the store refuses a request whose
            time differs by more than 15 minutes.
        skew_refusal: How it refuses such a request.
        endpoint_url: Endpoint of the proxy.
    """

    upstream: str
    rule: Rule = lambda _: None
    calls: list[Call] = field(default_factory=list)
    dropped: frozenset[str] = frozenset()
    clock_ahead_s: float = 0.0
    skew_refusal: Refusal = Refusal(403, "RequestTimeTooSkewed")
    endpoint_url: str = ""

    def action(self, call: Call) -> Action | None:
        """Returns what the proxy does with a call."""
        return self.skew_refusal if abs(self.clock_ahead_s) > SKEW_MAX_S else self.rule(call)

    def reset(self) -> None:
        """Clears the calls and removes the rule."""
        self.rule = lambda _: None
        self.calls = []

    def names(self) -> list[str]:
        """Returns the names of all calls so far, in order."""
        return [call.name for call in self.calls]


@contextmanager
def s3_proxy(upstream: str, tls: Certificate | None = None) -> Iterator[S3Proxy]:
    """Yields a running proxy in front of a server, over TLS if there is a certificate."""
    proxy = S3Proxy(upstream)

    class Handler(_Handler):
        settings = proxy

    with _Server(("127.0.0.1", 0), Handler) as server:
        proxy.endpoint_url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
        if tls is not None:
            server.socket = tls.server().wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores errors of connections, which a killed worker leaves open, and reports all others."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    settings: S3Proxy
    protocol_version = "HTTP/1.1"
    timeout = 2  # an idle kept-alive connection must not hold up the end of a test

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.command, parts.path, parse_qs(parts.query, keep_blank_values=True), headers)
        self.settings.calls.append(call)
        action = self.settings.action(call)
        if isinstance(action, Refusal):
            self._answer(action.status, {"content-type": "application/xml"}, _error_body(action.code, call))
            return
        if isinstance(action, Damaged):
            body = body[:-1] + bytes([body[-1] ^ 1])
        status, response_headers, content = self._forward(body)
        if isinstance(action, Lost):
            self.close_connection = True
            return
        if isinstance(action, Altered):
            changed = response_headers | action.headers
            response_headers = {name: value for name, value in changed.items() if value}
        if isinstance(action, Rewritten):
            content = re.sub(action.pattern, action.by, content)
        self._answer(status, response_headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815  # http.server looks for these names

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.settings.upstream.removeprefix("http://"))
        hidden = self.settings.dropped | {"content-length"}
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

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Returns the store's time, for the header `Date`."""
        return super().date_time_string((timestamp or time.time()) + self.settings.clock_ahead_s)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        """Logs nothing."""


def _error_body(code: str, call: Call) -> bytes:
    error = f"<Error><Code>{code}</Code><Message>as the test wants</Message></Error>"
    # S3 has no call with this path and method. SNS and STS have no other.
    is_query = (call.method, call.path) == ("POST", "/")
    return f"<?xml version='1.0'?>{f'<ErrorResponse>{error}</ErrorResponse>' if is_query else error}".encode()
