"""Builds boto3's S3 client, and lists the calls that the worker makes with it."""

from dataclasses import dataclass
from typing import Any, Protocol

import boto3
from botocore import auth
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config

from export_worker.s3.endpoints import Endpoint
from export_worker.s3.errors import NotS3Error
from export_worker.s3.sessions import session_for
from export_worker.s3.settings import BUCKET_DEFAULTS, StorageSettings
from export_worker.s3.small_sender import first_answer, small_sender
from export_worker.step_context import check_lease

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
"""A store takes long to answer only when it completes a very large upload."""
ATTEMPTS = 5
"""Attempts for one call, with botocore's backoff: to send a part again is cheap, to repeat a download is not."""
_REQUIRED_FIELDS = {
    "PutObject": "ETag",
    "CreateMultipartUpload": "UploadId",
    "UploadPart": "ETag",
    "CompleteMultipartUpload": "ETag",
    "HeadObject": "ETag",
    "CopyObject": "CopyObjectResult",
    "UploadPartCopy": "CopyPartResult",
}
"""The field that S3 sends in every successful response to a call."""
_NEED_LEASE = (
    "PutObject",
    "CreateMultipartUpload",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "CopyObject",
    "DeleteObject",
)
"""Requests that a worker may send only while it holds the lease of the export. A part alone changes no object."""


class S3Client(Protocol):
    """The calls that the worker makes, with the permission that each needs.

    Arguments and responses are those of boto3's client.
    """

    @property
    def meta(self) -> Any:
        """boto3's description of the client, with the URL of its endpoint."""

    def put_object(self, **arguments: Any) -> dict[str, Any]:
        """`s3:PutObject`."""

    def create_multipart_upload(self, **arguments: Any) -> dict[str, Any]:
        """`s3:PutObject`."""

    def upload_part(self, **arguments: Any) -> dict[str, Any]:
        """`s3:PutObject`."""

    def copy_object(self, **arguments: Any) -> dict[str, Any]:
        """`s3:GetObject` on the source and `s3:PutObject`, with tags also `s3:PutObjectTagging`."""

    def upload_part_copy(self, **arguments: Any) -> dict[str, Any]:
        """`s3:GetObject` on the source and `s3:PutObject`."""

    def complete_multipart_upload(self, **arguments: Any) -> dict[str, Any]:
        """`s3:PutObject`."""

    def abort_multipart_upload(self, **arguments: Any) -> dict[str, Any]:
        """`s3:AbortMultipartUpload`."""

    def list_multipart_uploads(self, **arguments: Any) -> dict[str, Any]:
        """`s3:ListBucketMultipartUploads`."""

    def list_parts(self, **arguments: Any) -> dict[str, Any]:
        """`s3:ListMultipartUploadParts`."""

    def list_objects_v2(self, **arguments: Any) -> dict[str, Any]:
        """`s3:ListBucket`; called only to find out whether the worker can use the bucket."""

    def get_object(self, **arguments: Any) -> dict[str, Any]:
        """`s3:GetObject`; called only by `call --body s3://…`."""

    def head_object(self, **arguments: Any) -> dict[str, Any]:
        """`s3:GetObject`, and `s3:ListBucket`: without it S3 answers 403 for a free key. Also after each upload."""

    def delete_object(self, **arguments: Any) -> dict[str, Any]:
        """`s3:DeleteObject`; called only for an object of the same export, and by `doctor` for its own objects."""

    def get_bucket_lifecycle_configuration(self, **arguments: Any) -> dict[str, Any]:
        """`s3:GetLifecycleConfiguration`; called only by `doctor`."""

    def close(self) -> None:
        """Closes the connections."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How often and how long the client tries one call.

    Args:
        attempts: Attempts in total.
        read_timeout_s: Longest wait for the next byte of a response.
    """

    attempts: int = ATTEMPTS
    read_timeout_s: float = READ_TIMEOUT_S


DEFAULT_LIMITS = CallLimits()


def build_client(
    endpoint: Endpoint,
    max_connections: int,
    *,
    limits: CallLimits = DEFAULT_LIMITS,
    settings: StorageSettings = BUCKET_DEFAULTS,
    session: boto3.session.Session | None = None,
) -> S3Client:
    """Builds boto3's S3 client.

    Must not be called on the event loop: it reads files. Credentials come from boto3's own chain and from nowhere else.
    The first call looks them up. Payloads are not signed: TLS or the checksum in the request protects them, and SHA-256
    would cost more CPU time than all other work together.

    Args:
        endpoint: The store.
        max_connections: Number of threads that make calls.
        limits: Attempts and timeout of one call.
        settings: Added to every call that they concern; they may name an IAM role that the client assumes.
        session: Has the credentials; see `session_for`. By default a new one, which no other client uses.
    """
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=limits.read_timeout_s,
        tcp_keepalive=True,
        max_pool_connections=max_connections,
        # Shows stores which program calls them. botocore builds its own for each call: a tenth of a small put's cost.
        user_agent="export-worker",
        retries={"mode": "standard", "total_max_attempts": limits.attempts},
        # The worker sends the CRC of the whole object; botocore would add a CRC32 and chunked signing.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": False, "addressing_style": endpoint.boto_addressing_style},
    )
    # If awscrt is installed, botocore signs with it. That copies every body, even if the payload is not signed: 8 MiB
    # for each part in the heap of each thread, twice the memory of the part buffers. botocore's own signer reads only
    # the headers.
    auth.AUTH_TYPE_MAPS["s3v4"] = auth.S3SigV4Auth
    # Never boto3's default session: it must not be used by several threads.
    session = session or session_for(settings, endpoint.region)
    client: Any = session.client("s3", region_name=endpoint.region, endpoint_url=endpoint.url, config=config)

    def add_settings(params: dict[str, Any], model: Any, **_: Any) -> None:
        params.update(settings.call_arguments(model.name, model.input_shape.members))

    client.meta.events.register("before-parameter-build.s3", add_settings)
    for operation in _NEED_LEASE:
        client.meta.events.register(f"before-send.s3.{operation}", _send_change)
    for operation in ("HeadObject", "UploadPart"):
        client.meta.events.register(f"before-send.s3.{operation}", _send)
    client.meta.events.register("before-call.s3.HeadBucket", _follow_no_redirect)
    client.meta.events.register_last("before-call.s3", _expect_no_continue)
    client.meta.events.register("after-call.s3", _check_response)
    _add_small_sender(client, session.get_credentials(), max_connections)
    checked: S3Client = client
    return checked


def _add_small_sender(client: Any, credentials: object, max_connections: int) -> None:
    """Gives a client the attribute `small_sender`, and closes that with the client."""
    http_session = client._endpoint.http_session  # noqa: SLF001  # botocore has no other way to it
    own = getattr(http_session, "session", http_session)
    client.small_sender = sender = small_sender(client, credentials, own, max_connections)
    close = client.close

    def close_both() -> None:
        if sender is not None:
            sender.close()
        close()

    client.close = close_both


def uses_tls(client: S3Client) -> bool:
    """Whether the calls of a client are encrypted."""
    url: str = client.meta.endpoint_url
    return url.startswith("https://")


def _send(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
    """Returns the answer that a small request has had; see `SmallSender`. None lets botocore send the request."""
    return first_answer(request)


def _send_change(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
    """Checks the lease before each attempt of a call that botocore makes.

    botocore repeats a call by itself, also minutes after its first attempt. In between, another worker may have resumed
    the export and ended it: a repeated delete would then remove its `_SUCCESS`.

    Raises:
        LeaseLostError: Another worker has the export now. The request is not sent.
    """
    answer = first_answer(request)
    if answer is None:
        check_lease()
    return answer


def _follow_no_redirect(params: dict[str, Any], **_: Any) -> None:
    """Does not follow a redirect of HeadBucket.

    When S3 redirects a call, botocore (1.44) asks for the bucket's region by HeadBucket. If that call is redirected
    too, botocore asks for its region in the same way, until Python's stack is full. This happens with every server that
    redirects without naming a region, such as a proxy that redirects http:// to https://.
    """
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _expect_no_continue(params: dict[str, Any], **_: Any) -> None:
    """Sends a body without waiting for `100 Continue`.

    botocore would wait up to a second for it, and would read the header lines behind it whatever their length.
    """
    params["headers"].pop("Expect", None)


def _check_response(http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """Refuses a successful response that does not come from S3, before the caller counts a file as stored.

    Raises:
        NotS3Error: The response lacks a field that S3 always sends.
    """
    field = _REQUIRED_FIELDS.get(model.name)
    if http_response.status_code < 300 and field is not None and field not in parsed:
        raise NotS3Error(operation=model.name, field=field)
