"""Storage settings on a real server: encryption, tags, storage class, bucket owner and assumed IAM role."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
from botocore.config import Config

from export_worker.errors import StorageError, StorageRefusedError, StorageUnavailableError, StorageUnusableError
from export_worker.s3.client import CallLimits, build_client
from export_worker.s3.endpoints import Endpoint
from export_worker.s3.objects import Target
from export_worker.s3.sessions import session_for
from export_worker.s3.settings import BUCKET_DEFAULTS, StorageSettings
from export_worker.s3.store import S3Store
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from support import s3_server
from support.misbehaving_server import HTML, answering, http
from support.s3_server import Call, Refusal, S3Proxy

OWNER = "123456789012"
FULL = StorageSettings(
    server_side_encryption="aws:kms",
    sse_kms_key_id="alias/exports",
    tags={"team": "data", "cost centre": "a/b"},
    expected_bucket_owner=OWNER,
    storage_class="STANDARD_IA",
)
ROLE = StorageSettings(
    role_arn=f"arn:aws:iam::{OWNER}:role/exports", external_id="x-7", role_session_name="nightly.exports"
)


@pytest.fixture(scope="module")
def direct(endpoint: str) -> Iterator[Any]:
    with s3_server.s3_client(endpoint) as client:
        yield client


@pytest.fixture
def bucket(direct: Any) -> str:
    return s3_server.new_bucket(direct)


@contextmanager
def store_with(
    settings: StorageSettings, endpoint_url: str, secrets: list[str | None] | None = None
) -> Iterator[S3Store]:
    """Yields a store whose client tries each call once. `secrets` receives the secrets that are fetched."""
    on_secret = ([] if secrets is None else secrets).append
    client = build_client(
        Endpoint(s3_server.REGION, endpoint_url),
        2,
        limits=CallLimits(attempts=1),
        settings=settings,
        session=session_for(settings, s3_server.REGION, on_secret),
    )
    with ThreadPoolExecutor(2) as executor:
        yield S3Store(client, executor)
    client.close()


async def write_in_parts(store: S3Store, target: Target) -> None:
    upload = await store.begin(target)
    parts = [await upload.send(1, bytearray(FIRST_PART_BYTES)), await upload.send(2, bytearray(b"end"))]
    await upload.complete(parts)


async def make_every_call(store: S3Store, bucket: str) -> None:
    await store.put(Target(bucket, "one", "e", "text/csv"), b"x")
    await store.put(Target(bucket, "one", "e", "text/csv"), b"other")
    await write_in_parts(store, Target(bucket, "parts", "e", "text/csv"))
    await store.begin(Target(bucket, "left-e", "e", "text/csv"))
    assert await store.abort_leftovers(bucket, "left", "e") == 1


async def test_objects_have_the_encryption_tags_and_class_of_the_settings(
    proxy: S3Proxy, direct: Any, bucket: str
) -> None:
    with store_with(FULL, proxy.endpoint_url) as store:
        await make_every_call(store, bucket)
    for key in ("one", "parts"):
        tags = direct.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == FULL.tags
        head = direct.head_object(Bucket=bucket, Key=key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/exports")
        assert head["StorageClass"] == "STANDARD_IA"
    assert {call.headers.get("x-amz-expected-bucket-owner") for call in proxy.calls} == {OWNER}
    encrypted = {call.name for call in proxy.calls if "x-amz-server-side-encryption" in call.headers}
    assert encrypted == {"put_object", "create_multipart_upload"}


async def test_settings_that_are_not_set_send_no_headers(proxy: S3Proxy, direct: Any, bucket: str) -> None:
    with store_with(BUCKET_DEFAULTS, proxy.endpoint_url) as store:
        await make_every_call(store, bucket)
    sent = {name for call in proxy.calls for name in call.headers}
    assert not sent & {
        "x-amz-expected-bucket-owner",
        "x-amz-server-side-encryption",
        "x-amz-storage-class",
        "x-amz-tagging",
        "x-amz-security-token",
    }
    assert direct.get_object_tagging(Bucket=bucket, Key="one")["TagSet"] == []


async def test_objects_are_encrypted_with_keys_of_s3(endpoint: str, direct: Any, bucket: str) -> None:
    with store_with(StorageSettings(server_side_encryption="AES256"), endpoint) as store:
        await write_in_parts(store, Target(bucket, "parts", "e", "text/csv"))
    head = direct.head_object(Bucket=bucket, Key="parts")
    assert head["ServerSideEncryption"] == "AES256"
    assert "SSEKMSKeyId" not in head


async def test_bucket_of_another_owner_is_refused_with_the_setting_to_check(proxy: S3Proxy, bucket: str) -> None:
    def only_its_owner(call: Call) -> Refusal | None:
        """Refuses calls with another owner, as S3 does; moto ignores the header."""
        return None if call.headers.get("x-amz-expected-bucket-owner") == OWNER else Refusal(403, "AccessDenied")

    proxy.rule = only_its_owner
    wrong = FULL.model_copy(update={"expected_bucket_owner": "999999999999"})
    with store_with(wrong, proxy.endpoint_url) as store:
        with pytest.raises(StorageRefusedError, match=r"put_object.*AccessDenied.*s3\.expected_bucket_owner"):
            await store.put(Target(bucket, "one", "e", "text/csv"), b"x")
        with pytest.raises(StorageRefusedError, match=r"create_multipart_upload.*s3\.expected_bucket_owner"):
            await store.begin(Target(bucket, "one", "e", "text/csv"))
    with store_with(FULL, proxy.endpoint_url) as store:
        await store.put(Target(bucket, "one", "e", "text/csv"), b"x")


# Assumed IAM roles


async def test_assumed_role_is_fetched_once_and_signs_every_call(endpoint: str, proxy: S3Proxy, bucket: str) -> None:
    secrets: list[str | None] = []
    with s3_server.s3_proxy(endpoint) as sts:
        settings = ROLE.model_copy(update={"sts_endpoint_url": sts.endpoint_url})
        with store_with(settings, proxy.endpoint_url, secrets) as store:
            assert sts.calls == [], "STS is called before the first call of S3"
            await make_every_call(store, bucket)
        assert [call.path for call in sts.calls] == ["/"]
        assert "AKIDTEST" in sts.calls[0].headers["authorization"]
    assert proxy.calls
    assert all("AKIDTEST" not in call.headers["authorization"] for call in proxy.calls)
    (token,) = {call.headers["x-amz-security-token"] for call in proxy.calls}
    assert len(secrets) == 3
    assert token in secrets


@pytest.mark.parametrize(
    ("refusal", "expected", "message"),
    [
        (Refusal(403, "AccessDenied"), StorageRefusedError, r"assume_role: AccessDenied, HTTP 403.*s3\.role_arn"),
        (Refusal(400, "ValidationError"), StorageRefusedError, r"assume_role: ValidationError.*s3\.role_arn"),
        (Refusal(503, "ServiceUnavailable"), StorageUnavailableError, "assume_role: ServiceUnavailable, HTTP 503$"),
    ],
)
async def test_role_that_sts_refuses_is_reported_as_assume_role_error(
    proxy: S3Proxy, bucket: str, refusal: Refusal, expected: type[StorageError], message: str
) -> None:
    with (
        sts_server(refusal) as (url, _),
        store_with(ROLE.model_copy(update={"sts_endpoint_url": url}), proxy.endpoint_url) as store,
        pytest.raises(StorageError, match=message) as caught,
    ):
        await store.put(Target(bucket, "one", "e", "text/csv"), b"x")
    assert type(caught.value) is expected
    assert "AKIDTEST" not in str(caught.value)
    assert proxy.calls == []


async def test_role_cannot_be_assumed_without_own_credentials(
    endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with (
        store_with(ROLE, endpoint) as store,
        pytest.raises(StorageUnusableError, match="AWS credentials are missing or incomplete"),
    ):
        await store.put(Target(bucket, "one", "e", "text/csv"), b"x")


async def test_credentials_of_the_role_are_replaced_before_they_expire(proxy: S3Proxy, bucket: str) -> None:
    with (
        sts_server() as (url, requests),
        store_with(ROLE.model_copy(update={"sts_endpoint_url": url}), proxy.endpoint_url) as store,
    ):
        await store.put(Target(bucket, "one", "e", "text/csv"), b"x")
        await store.put(Target(bucket, "two", "e", "text/csv"), b"x")
    assert len(requests) == 2
    assert {name: requests[0][name] for name in ("Action", "RoleArn", "ExternalId", "RoleSessionName")} == {
        "Action": ["AssumeRole"],
        "RoleArn": [ROLE.role_arn],
        "ExternalId": ["x-7"],
        "RoleSessionName": ["nightly.exports"],
    }
    assert [call.headers["x-amz-security-token"] for call in proxy.calls] == ["token-1", "token-2"]


@contextmanager
def sts_server(refusal: Refusal | None = None) -> Iterator[tuple[str, list[dict[str, list[str]]]]]:
    """Runs an STS whose credentials live for a minute: botocore replaces them ten minutes before their end.

    Yields:
        Its address, and the parameters of the requests so far.
    """
    requests: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(parse_qs(body.decode()))
            answer = (_refused(refusal) if refusal else _granted(len(requests))).encode()
            self.send_response(refusal.status if refusal else 200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


_STS = "xmlns='https://sts.amazonaws.com/doc/2011-06-15/'"


def _granted(number: int) -> str:
    until = (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f"<AssumeRoleResponse {_STS}><AssumeRoleResult><Credentials>"
        f"<AccessKeyId>ASIA{number}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>"
        f"<SessionToken>token-{number}</SessionToken><Expiration>{until}</Expiration>"
        "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )


def _refused(refusal: Refusal) -> str:
    return f"<ErrorResponse {_STS}><Error><Code>{refusal.code}</Code><Message>no</Message></Error></ErrorResponse>"


# Servers that are not S3


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (http("301 Moved", b"", b"Location: https://example.com/\r\n"), StorageRefusedError, "301.*s3.endpoint_url"),
        (http("200 OK", HTML), StorageUnavailableError, "does not come from S3.*s3.endpoint_url"),
    ],
)
async def test_write_to_a_server_that_is_not_s3_fails(
    endpoint: str, answer: bytes, expected: type[StorageError], message: str
) -> None:
    async with answering(answer) as url:
        with store_with(BUCKET_DEFAULTS, url) as store:
            with pytest.raises(StorageError, match=message) as caught:
                await store.put(Target("bucket", "one", "e", "text/csv"), b"x")
            assert type(caught.value) is expected
            with pytest.raises(expected, match=message):
                await store.begin(Target("bucket", "one", "e", "text/csv"))


async def test_sts_that_does_not_answer_fails_the_call_after_its_timeout(
    endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_timeouts = Config(connect_timeout=1, read_timeout=0.2, retries={"mode": "standard", "total_max_attempts": 1})
    monkeypatch.setattr("export_worker.s3.sessions.STS_CONFIG", short_timeouts)
    async with answering(None) as url, asyncio.timeout(10):
        with (
            store_with(ROLE.model_copy(update={"sts_endpoint_url": url}), endpoint) as store,
            pytest.raises(StorageUnavailableError, match="ReadTimeoutError"),
        ):
            await store.put(Target(bucket, "one", "e", "text/csv"), b"x")
