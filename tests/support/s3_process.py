"""The S3 server of the tests: moto, and what S3 does about checksums that moto does not.

S3 refuses a body that is not what was announced, and a part whose checksum is not that of its upload. It tells
checksums in its answers to puts, completions and lists of parts (Amazon S3 API Reference).

Writes its port, and ends with its input.
"""

import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from awscrt import checksums
from moto.s3.exceptions import S3ClientError
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

from export_worker.s3.checksums import ALGORITHMS, Algorithm, Checksum, content_md5

# moto reckons CRC32C by this package, and something else where it is not there.
sys.modules["crc32c"] = SimpleNamespace(crc32c=checksums.crc32c)  # type: ignore[assignment]


def header(algorithm: Algorithm) -> str:
    return f"x-amz-checksum-{algorithm.name.lower()}"


def announced(server: S3Response) -> dict[Algorithm, str]:
    """The checksums that a request has."""
    return {
        algorithm: server.headers[header(algorithm)] for algorithm in ALGORITHMS if header(algorithm) in server.headers
    }


def checked(bare: Callable[..., Any]) -> Callable[..., Any]:
    """A write that refuses a body which is not what was announced."""

    def write(server: S3Response, *args: Any, **named: Any) -> Any:
        body = server.body or b""
        wrong = any(Checksum.of(body, algorithm).wire != told for algorithm, told in announced(server).items())
        if wrong or server.headers.get("Content-MD5") not in {None, content_md5(body)}:
            raise S3ClientError("BadDigest", "what came is not what was announced")
        return bare(server, *args, **named)

    return write


def of_its_upload(bare: Callable[..., Any]) -> Callable[..., Any]:
    """A part that is refused when its checksum is another than that of its upload."""

    def upload_part(server: S3Response) -> Any:
        begun = begun_with(server)
        if begun is not None and set(announced(server)) - {begun}:
            raise S3ClientError("InvalidRequest", "the upload was begun with another checksum")
        return bare(server)

    return upload_part


def begun_with(server: S3Response) -> Algorithm | None:
    upload = server.backend.get_bucket(server.bucket_name).multiparts.get(server._get_param("uploadId"))
    name = upload and upload.metadata.get("x-amz-checksum-algorithm")
    return next((algorithm for algorithm in ALGORITHMS if algorithm.name == name), None)


def kept(bare: Callable[..., Any]) -> Callable[..., Any]:
    """Told and kept also where the request does not name the algorithm apart."""

    def get_checksum(server: S3Response, headers: dict[str, Any]) -> Any:
        for algorithm, told in announced(server).items():
            headers[header(algorithm)] = told
            return algorithm.name, told
        return bare(server, headers)

    return get_checksum


def with_checksums(bare: Callable[..., Any]) -> Callable[..., Any]:
    """A list of parts that has the checksum of each."""

    def list_parts(server: S3Response) -> Any:
        status, headers, body = bare(server)
        begun = begun_with(server)
        if begun is not None:
            upload = server.backend.get_bucket(server.bucket_name).multiparts[server._get_param("uploadId")]
            for number, part in upload.parts.items():
                told = f"<PartNumber>{number}</PartNumber>"
                body = body.replace(told, told + element(begun, Checksum.of(part.value, begun).wire))
        return status, headers, body

    return list_parts


def with_checksum(bare: Callable[..., Any]) -> Callable[..., Any]:
    """A completion that tells the checksum of the whole."""

    def post(server: S3Response, request: Any, sent: bytes, bucket: str, query: dict[str, Any], key: str) -> Any:
        begun = begun_with(server) if "uploadId" in query else None
        status, headers, body = bare(server, request, sent, bucket, query, key)
        if begun is not None and status == 200:
            whole: Any = server.backend.get_object(bucket, key)
            told = element(begun, whole.checksum_value) + f"<ChecksumType>{whole.checksum_type}</ChecksumType>"
            body = body.replace("</ETag>", "</ETag>" + told)
        return status, headers, body

    return post


def element(algorithm: Algorithm, wire: str) -> str:
    return f"<{algorithm.field}>{wire}</{algorithm.field}>"


def teach(server: Any) -> None:
    server.put_object = checked(server.put_object)
    server.upload_part = of_its_upload(checked(server.upload_part))
    server.list_parts = with_checksums(server.list_parts)
    server._get_checksum = kept(server._get_checksum)
    server._key_response_post = with_checksum(server._key_response_post)


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    teach(S3Response)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    sys.stdout.write(f"listening on {server.get_host_and_port()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
