"""Builds small requests without botocore's whole path: from one that botocore has built, with botocore's signer.

botocore builds the first request of each operation and bucket. From it this module learns the address, the region to
sign for and the headers of the settings. It learns only from a request that it can build itself, with an equal
signature. So a bucket whose requests need more, such as another signature, never leaves botocore's path.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

from botocore.auth import UNSIGNED_PAYLOAD, S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.utils import percent_encode, percent_encode_sequence

from export_worker.s3.small_http import Server

_SIGNED_EACH_TIME = {"authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"}
_WRITTEN_EACH_TIME = {"content-length", "amz-sdk-invocation-id"}
_OF_CLIENT = {"user-agent", "amz-sdk-request"}
_OF_SETTINGS = {
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-storage-class",
    "x-amz-tagging",
    "x-amz-expected-bucket-owner",
}
"""What `StorageSettings.call_arguments` adds to each call of one client."""
_NOT_SIGNED = {"amz-sdk-request"}
"""botocore adds it after it has signed."""
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/,]+/\d{8}/([^/,]+)/([^/,]+)/aws4_request, ")
_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")
"""A value that every program writes into a header in the same way."""
_PORTS = {"http": 80, "https": 443}


class NotSmallError(Exception):
    """Only botocore can build this request."""


@dataclass(frozen=True, slots=True)
class OperationShape:
    """Which arguments and fields of one operation are headers, by botocore's model.

    Args:
        method: HTTP's method.
        headers: Names of the headers by argument.
        prefixes: Beginnings of headers by argument, for arguments that are maps.
        queries: Names in the query of the URL by argument.
        fields: The field, and whether it is a number, by the name of a response's header in lower case.
    """

    name: str
    method: str
    headers: dict[str, str]
    prefixes: dict[str, str]
    queries: dict[str, str]
    fields: dict[str, tuple[str, bool]]

    @classmethod
    def of(cls, model: Any) -> Self:
        """Reads botocore's model of an operation."""
        arguments, fields = model.input_shape.members, getattr(model.output_shape, "members", {})
        return cls(
            name=model.name,
            method=model.http["method"],
            headers={name: wire for name, shape in arguments.items() if (wire := _header(shape, "string")) is not None},
            prefixes={
                name: shape.serialization["name"]
                for name, shape in arguments.items()
                if shape.serialization.get("location") == "headers"
            },
            queries={
                name: shape.serialization["name"]
                for name, shape in arguments.items()
                if shape.serialization.get("location") == "querystring" and shape.type_name in {"string", "integer"}
            },
            fields={
                wire.lower(): (name, shape.type_name != "string")
                for name, shape in fields.items()
                if (wire := _header(shape, "string", "integer", "long")) is not None
            },
        )

    def headers_of(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Returns the headers of a call's arguments. Raises NotSmallError if it has other arguments, too."""
        headers: dict[str, Any] = {}
        for name, value in arguments.items():
            if name in self.headers:
                headers[self.headers[name]] = value
            elif name in self.prefixes:
                headers |= {self.prefixes[name] + key: text for key, text in value.items()}
            elif name not in {"Bucket", "Key", "Body", *self.queries}:
                raise NotSmallError
        if not all(isinstance(text, str) and _PLAIN.fullmatch(text) for text in headers.values()):
            raise NotSmallError
        return headers

    def query_of(self, arguments: Mapping[str, Any]) -> str:
        """Returns the query of the URL of a call, with its question mark; an empty string if it has none.

        As botocore does, it follows the order of the arguments.
        """
        values = {self.queries[name]: value for name, value in arguments.items() if name in self.queries}
        return f"?{percent_encode_sequence(values)}" if values else ""

    def response(self, status: int, headers: Mapping[str, str]) -> dict[str, Any]:
        """Returns the fields of a successful response that the worker reads, as botocore does. Raises ValueError."""
        response: dict[str, Any] = {
            self.fields[name][0]: int(text) if self.fields[name][1] else text
            for name, text in headers.items()
            if name in self.fields
        }
        prefix = "x-amz-meta-"
        response["Metadata"] = {name[len(prefix) :]: text for name, text in headers.items() if name.startswith(prefix)}
        response["ResponseMetadata"] = {"HTTPStatusCode": status, "HTTPHeaders": headers, "RetryAttempts": 0}
        return response


def _header(shape: Any, *types: str) -> str | None:
    is_header = shape.serialization.get("location") == "header" and shape.type_name in types
    return str(shape.serialization["name"]) if is_header else None


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """What the requests of one operation have in common in one bucket.

    Args:
        shape: The operation.
        server: Where requests are sent.
        origin: The URL before the path.
        base_url: The URL before the key.
        constant: Headers that are the same in each request.
        has_length: The request has the length of its body.
        region: Region to sign for.
        service: Service to sign for.
        config: The client's configuration, which the signer reads.
    """

    shape: OperationShape
    server: Server
    origin: str
    base_url: str
    constant: dict[str, str]
    has_length: bool
    region: str
    service: str
    config: Any

    @classmethod
    def learned(
        cls,
        shape: OperationShape,
        sent: AWSPreparedRequest,
        arguments: Mapping[str, Any],
        credentials: ReadOnlyCredentials,
        config: Any,
    ) -> Self:
        """Returns the template of a request that botocore has sent.

        Args:
            sent: The request.
            arguments: The arguments of its call.
            credentials: The credentials of the request.
            config: The client's configuration.

        Raises:
            NotSmallError: The request has something that this module does not know.
        """
        headers = {name: _text(value) for name, value in sent.headers.items()}
        own = {name.lower() for name in shape.headers_of(arguments)} | _SIGNED_EACH_TIME | _WRITTEN_EACH_TIME
        constant = {name: value for name, value in headers.items() if name.lower() not in own}
        scope, key = _SCOPE.match(headers.get("Authorization", "")), _url_key(arguments["Key"])
        query = shape.query_of(arguments)
        is_known = {name.lower() for name in constant} <= _OF_CLIENT | _OF_SETTINGS
        if scope is None or not is_known or sent.method != shape.method or not sent.url.endswith(f"/{key}{query}"):
            raise NotSmallError
        server, origin = _server(sent.url.removesuffix(query))
        template = cls(
            shape=shape,
            server=server,
            origin=origin,
            base_url=sent.url.removesuffix(f"{key}{query}"),
            constant=constant,
            has_length="Content-Length" in headers,
            region=scope[1],
            service=scope[2],
            config=config,
        )
        if not template._builds(headers, sent.url, arguments, credentials):
            raise NotSmallError
        return template

    def build(self, arguments: Mapping[str, Any], credentials: ReadOnlyCredentials) -> AWSRequest:
        """Returns the signed request of a call. It lacks only the length of its body.

        Raises:
            NotSmallError: Only botocore can build it.
        """
        request = self._unsigned(arguments)
        self._signer(credentials).add_auth(request)
        self._complete(request, str(uuid4()))
        return request

    def wire(self, request: AWSRequest, length_bytes: int) -> bytes:
        """Returns a request as it is sent, without its body."""
        target = str(request.url).removeprefix(self.origin)
        host = self.server.host_header
        lines = [f"{self.shape.method} {target} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        if self.has_length:
            lines.append(f"Content-Length: {length_bytes}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _unsigned(self, arguments: Mapping[str, Any]) -> AWSRequest:
        headers = self.shape.headers_of(arguments)
        headers |= {name: value for name, value in self.constant.items() if name.lower() not in _NOT_SIGNED}
        url = self.base_url + _url_key(arguments["Key"]) + self.shape.query_of(arguments)
        request = AWSRequest(self.shape.method, url, headers)
        request.context["client_config"] = self.config
        return request

    def _complete(self, request: AWSRequest, invocation_id: str) -> None:
        request.headers["amz-sdk-invocation-id"] = invocation_id
        for name, value in self.constant.items():
            if name.lower() in _NOT_SIGNED:
                request.headers[name] = value

    def _signer(self, credentials: ReadOnlyCredentials) -> S3SigV4Auth:
        if not all(text is None or _PLAIN.fullmatch(text) for text in credentials):
            raise NotSmallError
        return S3SigV4Auth(credentials, self.service, self.region)

    def _builds(
        self, headers: Mapping[str, str], url: str, arguments: Mapping[str, Any], credentials: ReadOnlyCredentials
    ) -> bool:
        """Whether this template builds the request that botocore has sent, with the same signature."""
        request, signer = self._unsigned(arguments), self._signer(credentials)
        request.context["timestamp"] = headers["X-Amz-Date"]
        for name in ("X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-SHA256"):
            if name in headers:
                request.headers[name] = headers[name]
        signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        self._complete(request, headers.get("amz-sdk-invocation-id", ""))
        built = dict(request.headers.items()) | {"Authorization": headers["Authorization"]}
        expected = {name: value for name, value in headers.items() if name != "Content-Length"}
        is_signed = headers["Authorization"].endswith(f"Signature={signature}")
        is_unsigned_body = headers.get("X-Amz-Content-SHA256") == UNSIGNED_PAYLOAD
        return is_signed and is_unsigned_body and request.url == url and _folded(built) == _folded(expected)


def _url_key(key: str) -> str:
    encoded: str = percent_encode(key, safe="/~")
    return encoded


def _server(url: str) -> tuple[Server, str]:
    """Returns the server of a URL, and the URL before the path."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or parts.hostname is None or parts.query or "@" in parts.netloc:
        raise NotSmallError
    usual = _PORTS[parts.scheme]
    host_header = parts.netloc.removesuffix(f":{usual}")
    server = Server(parts.hostname, parts.port or usual, host_header, is_tls=parts.scheme == "https")
    return server, f"{parts.scheme}://{parts.netloc}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _folded(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
