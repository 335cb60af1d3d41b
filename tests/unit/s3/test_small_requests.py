"""Small requests are equal to those of botocore, byte for byte, for all keys, buckets, settings and credentials."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from export_worker.s3.bounded_http import ReadBody
from export_worker.s3.client import build_client
from export_worker.s3.endpoints import Endpoint
from export_worker.s3.sessions import late_credentials, session_for
from export_worker.s3.settings import BUCKET_DEFAULTS, StorageSettings
from export_worker.s3.small_requests import NotSmallError, OperationShape, RequestTemplate
from export_worker.s3.small_sender import OPERATIONS
from support.s3_server import s3_credentials

FULL = StorageSettings(
    server_side_encryption="aws:kms",
    sse_kms_key_id="arn:aws:kms:eu-west-1:123456789012:key/1-2",
    tags={"team": "data + more", "cost centre": "a/b"},
    expected_bucket_owner="123456789012",
    storage_class="STANDARD_IA",
)
STORES = {
    "AWS": (Endpoint("eu-west-1"), "bucket"),
    "AWS in China": (Endpoint("cn-north-1"), "bucket"),
    "AWS, path": (Endpoint("us-east-1", addressing_style="path"), "bucket"),
    "AWS, bucket with dots": (Endpoint("us-east-1"), "a.bucket.example"),
    "another store": (Endpoint("us-east-1", "http://store.example:9000"), "bucket"),
    "behind a path": (Endpoint("us-east-1", "https://store.example/s3/"), "bucket"),
    "IPv6": (Endpoint("us-east-1", "http://[::1]:9000"), "bucket"),
    "upper case": (Endpoint("us-east-1", "http://Store.Example:9000"), "bucket"),
    "usual port": (Endpoint("us-east-1", "https://store.example:443"), "bucket"),
    "virtual host": (Endpoint("oss", "https://oss-cn-hangzhou.aliyuncs.com"), "bucket"),
}
KEYS = (
    "e/a.csv",
    "/",
    "//a//b/",
    "../a/./b",
    "e/ü 人+%2F~!*'();:@&=$,?#[]{}|\\^`\"<>",
    "tab\tand\nline",
    "bucket/bucket",
    "e/" + "x" * 1000,
)
CALLS: dict[str, tuple[dict[str, Any], ...]] = {
    "put_object": (
        {"ContentType": "text/csv", "Metadata": {"export-id": "e"}, "IfNoneMatch": "*", "Body": b"bytes"},
        {"ContentType": "text/csv", "Metadata": {"export-id": "e"}, "ChecksumCRC64NVME": "AAAAAAAAAAA=", "Body": b""},
        {"ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg==", "Body": b"b"},
    ),
    "upload_part": (
        {"PartNumber": 1, "UploadId": "2~a-b_c.D+/=&x yä", "ChecksumCRC64NVME": "AAAAAAAAAAA=", "Body": bytearray(9)},
        {"UploadId": "1", "PartNumber": 10_000, "ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg==", "Body": bytearray(9)},
    ),
    "head_object": ({"ChecksumMode": "ENABLED"},),
    "delete_object": ({"IfMatch": '"0123"'}, {}),
}


def headers(values: dict[str, Any]) -> HTTPHeaders:
    return HTTPHeaders.from_dict(values)


class Wire:
    """A client that sends nothing. It keeps what botocore would have sent."""

    def __init__(self, endpoint: Endpoint, settings: StorageSettings = BUCKET_DEFAULTS) -> None:
        session = session_for(settings, endpoint.region)
        self.client: Any = build_client(endpoint, 1, settings=settings, session=session)
        self.client.meta.events.register("before-send.s3", self._keep)
        self._credentials = late_credentials(session)
        self._sent: list[AWSPreparedRequest] = []

    def sent(self, operation: str, arguments: dict[str, Any]) -> AWSPreparedRequest:
        """Returns botocore's request of a call."""
        getattr(self.client, operation)(**arguments)
        return self._sent.pop()

    def learned(self, operation: str, arguments: dict[str, Any]) -> RequestTemplate:
        """Returns the template of a call's request."""
        shape = OperationShape.of(self.client.meta.service_model.operation_model(OPERATIONS[operation]))
        sent = self.sent(operation, arguments)
        return RequestTemplate.learned(shape, sent, arguments, self.credentials)

    @property
    def credentials(self) -> Any:
        """The credentials of the last call."""
        return self._credentials.ready()

    def _keep(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        self._sent.append(request)
        return AWSResponse(request.url, 200, headers({"ETag": '"x"', "Content-Length": "0"}), ReadBody())


@pytest.fixture(autouse=True)
def _frozen_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    now = datetime.now(UTC).replace(tzinfo=None)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now)
    with s3_credentials():
        yield


@contextmanager
def wire(endpoint: Endpoint, settings: StorageSettings = BUCKET_DEFAULTS) -> Iterator[Wire]:
    opened = Wire(endpoint, settings)
    yield opened
    opened.client.close()


def assert_equal_requests(site: Wire, bucket: str, keys: tuple[str, ...] = KEYS) -> None:
    for operation, calls in CALLS.items():
        template = site.learned(operation, {"Bucket": bucket, "Key": "e/first.csv"} | calls[0])
        for key in keys:
            for call in calls:
                arguments = {"Bucket": bucket, "Key": key} | call
                assert_equal(template, site.sent(operation, arguments), arguments, site.credentials)


def assert_equal(template: RequestTemplate, sent: AWSPreparedRequest, arguments: dict[str, Any], keys: Any) -> None:
    built = template.build(arguments, keys)
    head, _, rest = built.wire(len(arguments.get("Body", b""))).partition(b"\r\n")
    lines = dict(_field(line) for line in rest.strip().split(b"\r\n"))
    expected = {name.lower(): _bytes(value) for name, value in sent.headers.items()}
    host = lines.pop("host").decode()
    assert lines.pop("accept-encoding") == b"identity"
    assert len(lines.pop("amz-sdk-invocation-id")) == len(expected.pop("amz-sdk-invocation-id"))
    assert lines == expected
    assert built.url == sent.url
    scheme, _, address = sent.url.partition("://")
    target = address[address.index("/") :]
    assert head.decode() == f"{sent.method} {target} HTTP/1.1"
    assert address.removesuffix(target).lower() in {host, f"{host}:443", f"{host}:80"}
    assert scheme in {"http", "https"}


def _field(line: bytes) -> tuple[str, bytes]:
    name, _, value = line.partition(b": ")
    return name.decode().lower(), value


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


@pytest.mark.parametrize("name", STORES)
def test_small_request_is_equal_to_that_of_botocore(name: str) -> None:
    endpoint, bucket = STORES[name]
    with wire(endpoint) as site:
        assert_equal_requests(site, bucket)


def test_small_request_has_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token/with+characters==")
    with wire(Endpoint("us-east-1", "https://store.example"), FULL) as site:
        assert_equal_requests(site, "bucket", KEYS[:2])
        sent = site.sent("put_object", {"Bucket": "bucket", "Key": "k", "Body": b""})
        assert sent.headers["x-amz-tagging"] == b"team=data%20%2B%20more&cost%20centre=a%2Fb"


@pytest.mark.parametrize(
    "arguments",
    [{"ContentType": "text/csv\r\nX: y"}, {"ContentType": " text/csv"}, {"Metadata": {"export-id": "ü"}}, {"ACL": 1}],
)
def test_request_with_an_odd_header_is_left_to_botocore(arguments: dict[str, Any]) -> None:
    with wire(Endpoint("us-east-1", "https://store.example")) as site:
        address = {"Bucket": "bucket", "Key": "k"}
        template = site.learned("put_object", address)
        with pytest.raises(NotSmallError):
            template.build(address | arguments, site.credentials)


def test_request_with_unknown_headers_or_another_signature_is_not_learned() -> None:
    with wire(Endpoint("us-east-1", "https://store.example")) as site:
        call = {"Bucket": "bucket", "Key": "k"}
        shape = OperationShape.of(site.client.meta.service_model.operation_model("HeadObject"))
        sent = site.sent("head_object", call)
        for name, value in (("x-amz-s3session-token", "t"), ("Authorization", "AWS4-HMAC-SHA256 Credential=A/1")):
            changed = AWSPreparedRequest("HEAD", sent.url, headers({**sent.headers, name: value}), None, False)
            with pytest.raises(NotSmallError):
                RequestTemplate.learned(shape, changed, call, site.credentials)
        other = site.credentials._replace(secret_key="another")
        with pytest.raises(NotSmallError):
            RequestTemplate.learned(shape, sent, call, other)
