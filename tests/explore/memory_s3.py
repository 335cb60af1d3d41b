"""An S3 in memory, behind a real boto3 client: objects, multipart uploads, and create-only writes."""

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict

CHECKSUM = "x-amz-checksum-crc64nvme"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object, with the headers that describe it."""

    body: bytes
    headers: Mapping[str, str]

    @property
    def etag(self) -> str:
        """Its ETag."""
        return f'"{hashlib.md5(self.body).hexdigest()}"'

    @property
    def checksum(self) -> dict[str, str]:
        """The header with its checksum, if it has one."""
        return {CHECKSUM: self.headers[CHECKSUM]} if CHECKSUM in self.headers else {}


@dataclass(slots=True)
class Upload:
    """One open multipart upload."""

    key: str
    headers: Mapping[str, str]
    parts: dict[int, StoredObject] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class S3Request:
    """One request, as S3 reads it."""

    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, request: AWSPreparedRequest) -> Self:
        """Reads a request that botocore is about to send."""
        address = urlsplit(request.url)
        return cls(
            key=unquote(address.path).lstrip("/").partition("/")[2],
            query=dict(parse_qsl(address.query, keep_blank_values=True)),
            headers={name.lower(): _text(value) for name, value in request.headers.items()},
            body=_bytes(request.body),
        )

    @property
    def kept_headers(self) -> dict[str, str]:
        """The headers that describe the object."""
        return {
            name: value
            for name, value in self.headers.items()
            if name.startswith("x-amz-meta-") or name in {CHECKSUM, "content-type", "content-encoding"}
        }

    @property
    def create_only(self) -> bool:
        """Whether the key must be free."""
        return self.headers.get("if-none-match") == "*"


Answer = tuple[int, dict[str, str], str]
"""Status, headers and body."""


class MemoryS3:
    """The objects and uploads of one bucket. Calls are executed one at a time."""

    def __init__(self) -> None:
        self.objects: dict[str, StoredObject] = {}
        self.uploads: dict[str, Upload] = {}
        self._begun = 0
        self._operations: dict[str, Callable[[S3Request], Answer]] = {
            "PutObject": self._put,
            "CopyObject": self._copy,
            "HeadObject": self._head,
            "DeleteObject": self._delete,
            "CreateMultipartUpload": self._create,
            "ListMultipartUploads": self._list_uploads,
            "ListObjectsV2": self._list_objects,
            "HeadBucket": lambda _: (200, {}, ""),
        }
        self._upload_operations: dict[str, Callable[[S3Request, Upload], Answer]] = {
            "UploadPart": _put_part,
            "ListParts": _list_parts,
            "CompleteMultipartUpload": self._complete,
            "AbortMultipartUpload": self._abort,
        }

    def execute(self, operation: str, prepared: AWSPreparedRequest) -> AWSResponse:
        """Executes one request, and returns the response as botocore reads it."""
        status, headers, body = self._answer(operation, S3Request.of(prepared))
        sent: Any = HeadersDict(headers)
        return AWSResponse(prepared.url, status, sent, _Raw(body.encode()))

    def _answer(self, operation: str, request: S3Request) -> Answer:
        if operation in self._operations:
            return self._operations[operation](request)
        upload = self.uploads.get(request.query["uploadId"])
        return refusal(404, "NoSuchUpload") if upload is None else self._upload_operations[operation](request, upload)

    def _put(self, request: S3Request) -> Answer:
        if request.create_only and request.key in self.objects:
            return refusal(412, "PreconditionFailed")
        stored = self.objects[request.key] = StoredObject(request.body, request.kept_headers)
        return 200, {"ETag": stored.etag} | stored.checksum, ""

    def _copy(self, request: S3Request) -> Answer:
        source = self.objects.get(unquote(request.headers["x-amz-copy-source"]).lstrip("/").partition("/")[2])
        if source is None:
            return refusal(404, "NoSuchKey")
        if request.headers.get("x-amz-copy-source-if-match") not in {None, source.etag}:
            return refusal(412, "PreconditionFailed")
        stored = StoredObject(source.body, request.kept_headers | source.checksum)
        self.objects[request.key] = stored
        fields = f"<ETag>{escape(stored.etag)}</ETag><ChecksumCRC64NVME>{stored.checksum.get(CHECKSUM, '')}"
        return 200, {}, _document("CopyObjectResult", f"{fields}</ChecksumCRC64NVME>")

    def _head(self, request: S3Request) -> Answer:
        stored = self.objects.get(request.key)
        if stored is None:
            return 404, {}, ""
        if request.headers.get("if-match") not in {None, stored.etag}:
            return 412, {}, ""
        return 200, {"Content-Length": str(len(stored.body)), "ETag": stored.etag} | dict(stored.headers), ""

    def _delete(self, request: S3Request) -> Answer:
        stored, wanted = self.objects.get(request.key), request.headers.get("if-match")
        if stored is not None and wanted not in {None, "*", stored.etag, stored.etag.strip('"')}:
            return refusal(412, "PreconditionFailed")
        self.objects.pop(request.key, None)
        return 204, {}, ""

    def _create(self, request: S3Request) -> Answer:
        self._begun += 1
        upload_id = f"upload-{self._begun}"
        self.uploads[upload_id] = Upload(request.key, request.kept_headers)
        kind = {name: request.headers[name] for name in ("x-amz-checksum-type",) if name in request.headers}
        return 200, kind, _document("InitiateMultipartUploadResult", f"<UploadId>{upload_id}</UploadId>")

    def _complete(self, request: S3Request, upload: Upload) -> Answer:
        if request.create_only and upload.key in self.objects:
            return refusal(412, "PreconditionFailed")
        numbers = re.findall(r"<PartNumber>(\d+)</PartNumber>", request.body.decode())
        if not numbers or any(int(number) not in upload.parts for number in numbers):
            return refusal(400, "InvalidPart")
        whole = b"".join(upload.parts[int(number)].body for number in numbers)
        stored = self.objects[upload.key] = StoredObject(whole, {**upload.headers, **request.kept_headers})
        self._abort(request, upload)
        checksum = stored.checksum.get(CHECKSUM, "")
        fields = f"<ETag>{escape(stored.etag)}</ETag><ChecksumCRC64NVME>{checksum}</ChecksumCRC64NVME>"
        return 200, {}, _document("CompleteMultipartUploadResult", fields)

    def _abort(self, request: S3Request, _: Upload) -> Answer:
        del self.uploads[request.query["uploadId"]]
        return 204, {}, ""

    def _list_objects(self, request: S3Request) -> Answer:
        listed = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(stored.body)}</Size></Contents>"
            for key, stored in sorted(self.objects.items())
            if key.startswith(request.query.get("prefix", ""))
        )
        return 200, {}, _document("ListBucketResult", f"<IsTruncated>false</IsTruncated>{listed}")

    def _list_uploads(self, request: S3Request) -> Answer:
        begun_at = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
        listed = "".join(
            f"<Upload><Key>{escape(upload.key)}</Key><UploadId>{upload_id}</UploadId>"
            f"<Initiated>{begun_at}</Initiated></Upload>"
            for upload_id, upload in self.uploads.items()
            if upload.key.startswith(request.query.get("prefix", ""))
        )
        return 200, {}, _document("ListMultipartUploadsResult", f"<IsTruncated>false</IsTruncated>{listed}")


def _put_part(request: S3Request, upload: Upload) -> Answer:
    part = upload.parts[int(request.query["partNumber"])] = StoredObject(request.body, request.kept_headers)
    return 200, {"ETag": part.etag} | part.checksum, ""


def _list_parts(_: S3Request, upload: Upload) -> Answer:
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><Size>{len(part.body)}</Size><ETag>{escape(part.etag)}</ETag>"
        f"<ChecksumCRC64NVME>{part.headers.get(CHECKSUM, '')}</ChecksumCRC64NVME></Part>"
        for number, part in sorted(upload.parts.items())
    )
    return 200, {}, _document("ListPartsResult", f"<IsTruncated>false</IsTruncated>{listed}")


def _document(name: str, fields: str) -> str:
    return f"<{name}>{fields}</{name}>"


def refusal(status: int, code: str) -> Answer:
    return status, {}, _document("Error", f"<Code>{code}</Code><Message>{code}</Message>")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _bytes(body: object) -> bytes:
    """Returns the body of a request, which may be a file."""
    if body is None:
        return b""
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    if isinstance(body, io.IOBase):
        return bytes(body.read())
    return str(body).encode()


class _Raw(io.BytesIO):
    """The body of a response, as botocore reads it."""

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        """Yields the whole body."""
        yield self.read()
