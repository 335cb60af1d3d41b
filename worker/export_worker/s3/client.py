"""The S3 client: the calls that we make, and how boto3's client is built for them."""

from typing import Any, Protocol

from botocore import auth
from botocore.config import Config

from export_worker.s3.errors import NotS3Error
from export_worker.s3.sessions import OnSecret, ignore_secret, session_for
from export_worker.s3.settings import BUCKET_DEFAULTS, StorageSettings

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
"""A store needs long for one answer only when it completes a very large upload."""
ATTEMPTS = 5
"""Of one call, by botocore's own backoff: a part is cheap to send again, a whole download is not."""
_TOLD = {
    "PutObject": "ETag",
    "CreateMultipartUpload": "UploadId",
    "UploadPart": "ETag",
    "CompleteMultipartUpload": "ETag",
    "HeadObject": "ETag",
}
"""What S3 tells in every good answer."""


class S3Client(Protocol):
    """What we call, and so what the credentials must allow; each takes and gives what boto3's client does."""

    def put_object(self, **fields: Any) -> dict[str, Any]:
        """`s3:PutObject`."""

    def create_multipart_upload(self, **fields: Any) -> dict[str, Any]:
        """`s3:PutObject`."""

    def upload_part(self, **fields: Any) -> dict[str, Any]:
        """`s3:PutObject`."""

    def complete_multipart_upload(self, **fields: Any) -> dict[str, Any]:
        """`s3:PutObject`."""

    def abort_multipart_upload(self, **fields: Any) -> dict[str, Any]:
        """`s3:AbortMultipartUpload`."""

    def list_multipart_uploads(self, **fields: Any) -> dict[str, Any]:
        """`s3:ListBucketMultipartUploads`."""

    def list_parts(self, **fields: Any) -> dict[str, Any]:
        """`s3:ListMultipartUploadParts`."""

    def head_object(self, **fields: Any) -> dict[str, Any]:
        """`s3:GetObject`, and `s3:ListBucket` to tell a missing key from a refusal."""

    def delete_object(self, **fields: Any) -> dict[str, Any]:
        """`s3:DeleteObject`; only ever for an object of the same export."""

    def close(self) -> None:
        """Close the connections."""


def build_client(
    region: str | None,
    endpoint_url: str | None,
    max_connections: int,
    *,
    attempts: int = ATTEMPTS,
    read_timeout_s: float = READ_TIMEOUT_S,
    storing: StorageSettings = BUCKET_DEFAULTS,
    learn: OnSecret = ignore_secret,
) -> S3Client:
    """Build boto3's client; once a process, not on the loop: it reads files and may ask for credentials.

    Credentials come from boto3's own chain and from nowhere else. Payloads go unsigned: TLS or the CRC64NVME that is
    sent with them covers them, and SHA-256 would cost more than everything else together.

    Args:
        region: AWS region; None leaves it to boto3's configuration.
        endpoint_url: None means AWS. Other stores are addressed by path, since few have a host name for each bucket.
        max_connections: As many as threads make calls.
        attempts: Of one call.
        read_timeout_s: Without a byte of the answer.
        storing: Added to every call that it concerns; names the role, if one is to be assumed.
        learn: Told each secret of that role.
    """
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        tcp_keepalive=True,
        max_pool_connections=max_connections,
        # Stores see who asks. botocore's own is put together anew for each call, a tenth of what a small put costs.
        user_agent="export-worker",
        retries={"mode": "standard", "total_max_attempts": attempts},
        # The checksum is ours (CRC64NVME of the whole object); botocore would add a CRC32 and chunked signing.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": False, "addressing_style": "path" if endpoint_url else "auto"},
    )
    # With awscrt installed botocore signs by it, and that copies every body, unsigned payload or not: 8 MiB a part in
    # each thread's own heap, twice the memory of the part buffers. Its own signer reads the head alone.
    auth.AUTH_TYPE_MAPS["s3v4"] = auth.S3SigV4Auth
    # A session of our own: the default one may not be used by several threads.
    session = session_for(storing, region, learn)
    client: Any = session.client("s3", region_name=region, endpoint_url=endpoint_url, config=config)

    def add(params: dict[str, Any], model: Any, **_: Any) -> None:
        params.update(storing.call_arguments(model.name, model.input_shape.members))

    client.meta.events.register("before-parameter-build.s3", add)
    client.meta.events.register("before-call.s3.HeadBucket", _ask_once)
    client.meta.events.register("after-call.s3", _check_answer)
    checked: S3Client = client
    return checked


def _ask_once(params: dict[str, Any], **_: Any) -> None:
    """Follow no redirect of the call by which botocore (1.44) asks a redirecting S3 for a bucket's region.

    It would ask for that call's region as well, and so on until Python's stack ends: whatever redirects without a
    region does so each time, such as a proxy that sends http:// to https://.
    """
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _check_answer(http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """Refuse a good answer that is none of S3's, before anybody takes a file for stored."""
    field = _TOLD.get(model.name)
    if http_response.status_code < 300 and field is not None and field not in parsed:
        raise NotS3Error(operation=model.name, field=field)
