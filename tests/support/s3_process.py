"""The S3 server of the tests: moto, with the checksum behaviour of S3 that moto lacks.

S3 refuses a body that does not match its checksum, and a part whose checksum algorithm is not that of its upload. It
returns checksums in its responses to puts, completions and lists of parts (Amazon S3 API Reference).

The process forks a server for each line of standard input, and prints its port and process id. All of them end when
standard input ends. A new interpreter that imports moto takes longer than most tests of a server.
"""

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

from awscrt import checksums
from moto.s3.exceptions import S3ClientError
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

from export_worker.s3.checksums import ALGORITHMS, Algorithm, Checksum, content_md5

# moto computes CRC32C with this package, and computes something else if the package is missing.
sys.modules["crc32c"] = SimpleNamespace(crc32c=checksums.crc32c)  # type: ignore[assignment]


def header(algorithm: Algorithm) -> str:
    return f"x-amz-checksum-{algorithm.name.lower()}"


def sent_checksums(server: S3Response) -> dict[Algorithm, str]:
    """Returns the checksums in a request's headers."""
    return {
        algorithm: server.headers[header(algorithm)] for algorithm in ALGORITHMS if header(algorithm) in server.headers
    }


def verifying_body(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a write, so that it refuses a body that does not match its checksum."""

    def write(server: S3Response, *args: Any, **named: Any) -> Any:
        body = server.body or b""
        sent = sent_checksums(server)
        wrong = any(Checksum.of(body, algorithm).wire != wire for algorithm, wire in sent.items())
        if wrong or server.headers.get("Content-MD5") not in {None, content_md5(body)}:
            raise S3ClientError("BadDigest", "the body does not match its checksum")
        return original(server, *args, **named)

    return write


def verifying_algorithm(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps the upload of a part, so that it refuses an algorithm that is not that of the upload."""

    def upload_part(server: S3Response) -> Any:
        algorithm = upload_algorithm(server)
        if algorithm is not None and set(sent_checksums(server)) - {algorithm}:
            raise S3ClientError("InvalidRequest", "the upload was created with another checksum algorithm")
        return original(server)

    return upload_part


def upload_algorithm(server: S3Response) -> Algorithm | None:
    """Returns the checksum algorithm with which the request's upload was created."""
    upload = server.backend.get_bucket(server.bucket_name).multiparts.get(server._get_param("uploadId"))
    name = upload and upload.metadata.get("x-amz-checksum-algorithm")
    return next((algorithm for algorithm in ALGORITHMS if algorithm.name == name), None)


def reading_any_checksum(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps moto's reading of checksums, so that it does not need a separate header with the algorithm's name."""

    def get_checksum(server: S3Response, headers: dict[str, Any]) -> Any:
        for algorithm, wire in sent_checksums(server).items():
            headers[header(algorithm)] = wire
            return algorithm.name, wire
        return original(server, headers)

    return get_checksum


def listing_checksums(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps the list of parts, so that it contains the checksum of each part."""

    def list_parts(server: S3Response) -> Any:
        status, headers, body = original(server)
        algorithm = upload_algorithm(server)
        if algorithm is not None:
            upload = server.backend.get_bucket(server.bucket_name).multiparts[server._get_param("uploadId")]
            for number, part in upload.parts.items():
                number_element = f"<PartNumber>{number}</PartNumber>"
                checksum_element = element(algorithm, Checksum.of(part.value, algorithm).wire)
                body = body.replace(number_element, number_element + checksum_element)
        return status, headers, body

    return list_parts


def returning_checksum(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps the completion of an upload, so that its response contains the checksum of the whole object."""

    def post(server: S3Response, request: Any, sent: bytes, bucket: str, query: dict[str, Any], key: str) -> Any:
        algorithm = upload_algorithm(server) if "uploadId" in query else None
        status, headers, body = original(server, request, sent, bucket, query, key)
        if algorithm is not None and status == 200:
            whole: Any = server.backend.get_object(bucket, key)
            added = element(algorithm, whole.checksum_value) + f"<ChecksumType>{whole.checksum_type}</ChecksumType>"
            body = body.replace("</ETag>", "</ETag>" + added)
        return status, headers, body

    return post


def element(algorithm: Algorithm, wire: str) -> str:
    return f"<{algorithm.field}>{wire}</{algorithm.field}>"


def add_checksums(server: Any) -> None:
    """Replaces methods of moto's S3 by the wrapped ones."""
    server.put_object = verifying_body(server.put_object)
    server.upload_part = verifying_algorithm(verifying_body(server.upload_part))
    server.list_parts = listing_checksums(server.list_parts)
    server._get_checksum = reading_any_checksum(server._get_checksum)
    server._key_response_post = returning_checksum(server._key_response_post)


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    add_checksums(S3Response)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets servers that have ended
    gc.freeze()  # a collection in a server would copy the memory of all modules
    ends, parent_only = os.pipe()
    for _ in sys.stdin:
        if os.fork() == 0:
            os.close(parent_only)
            serve(ends)


def serve(ends: int) -> NoReturn:
    """Runs a server until it is killed, or until the process that forked it ends, which closes the pipe `ends`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    sys.stdout.write(f"listening on {server.get_host_and_port()[1]} {os.getpid()}\n")
    sys.stdout.flush()
    os.read(ends, 1)
    os._exit(0)


if __name__ == "__main__":
    main()
