"""Builds small requests without botocore's whole path: from one that botocore has built, with botocore's signer.

botocore builds the first request of each operation and bucket. From it this module learns the address, the region to
sign for and the headers of the settings. It learns only from a request that it can build itself, with an equal
signature. So a bucket whose requests need more, such as another signature, never leaves botocore's path.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

from botocore import auth
from botocore.awsrequest import AWSPreparedRequest
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
_NOT_SIGNED = {"amz-sdk-request", "user-agent"}
"""botocore adds the first one after it has signed. Programs in between may change the other one."""
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/,]+/\d{8}/([^/,]+)/([^/,]+)/aws4_request, ")
_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")
"""A value that every program writes into a header in the same way."""
_AUTH: Any = auth
"""Its clock is not in the published types, and its signer reads only the time of a request; see `_Moment`."""
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
    """

    shape: OperationShape
    server: Server
    origin: str
    base_url: str
    constant: dict[str, str]
    has_length: bool
    region: str
    service: str

    @classmethod
    def learned(
        cls,
        shape: OperationShape,
        sent: AWSPreparedRequest,
        arguments: Mapping[str, Any],
        credentials: ReadOnlyCredentials,
    ) -> Self:
        """Returns the template of a request that botocore has sent.

        Args:
            sent: The request.
            arguments: The arguments of its call.
            credentials: The credentials of the request.

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
        )
        if not template._builds(headers, sent.url, arguments, credentials):
            raise NotSmallError
        return template

    def build(self, arguments: Mapping[str, Any], credentials: ReadOnlyCredentials) -> "SmallRequest":
        """Returns the signed request of a call.

        Raises:
            NotSmallError: Only botocore can build it.
        """
        return self._built(arguments, credentials, _AUTH.get_current_datetime().strftime(auth.SIGV4_TIMESTAMP))

    def _built(self, arguments: Mapping[str, Any], credentials: ReadOnlyCredentials, timestamp: str) -> "SmallRequest":
        headers = (
            self.shape.headers_of(arguments)
            | self.constant
            | {
                "X-Amz-Date": timestamp,
                "X-Amz-Content-SHA256": auth.UNSIGNED_PAYLOAD,
            }
        )
        if credentials.token:
            headers["X-Amz-Security-Token"] = credentials.token
        if not all(text is None or _PLAIN.fullmatch(text) for text in credentials):
            raise NotSmallError
        url = self.base_url + _url_key(arguments["Key"]) + self.shape.query_of(arguments)
        target = url.removeprefix(self.origin)
        headers["Authorization"] = self._authorization(target, headers, credentials, timestamp)
        return SmallRequest(self, url, target, headers)

    def _authorization(
        self, target: str, headers: Mapping[str, str], credentials: ReadOnlyCredentials, timestamp: str
    ) -> str:
        """Returns the header with the signature. The text to sign is built here, and signed by botocore.

        botocore keeps headers as those of mails, which makes up most of the time of a signature.
        """
        signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
        names = sorted((signed.keys() | {"host"}) - _NOT_SIGNED)
        signed["host"] = self.server.host_header
        lines = [f"{name}:{signed[name]}" for name in names]
        path, _, query = target.partition("?")
        ordered = "&".join(sorted(query.split("&")))
        canonical = [self.shape.method, path, ordered, *lines, "", ";".join(names), auth.UNSIGNED_PAYLOAD]
        signer, moment = _AUTH.S3SigV4Auth(credentials, self.service, self.region), _Moment({"timestamp": timestamp})
        signature = signer.signature(signer.string_to_sign(moment, "\n".join(canonical)), moment)
        scope, joined = signer.scope(moment), ";".join(names)
        return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={joined}, Signature={signature}"

    def _builds(
        self, headers: Mapping[str, str], url: str, arguments: Mapping[str, Any], credentials: ReadOnlyCredentials
    ) -> bool:
        """Whether this template builds the request that botocore has sent, with the same signature."""
        built = self._built(arguments, credentials, headers.get("X-Amz-Date", ""))
        expected = {name.lower(): value for name, value in headers.items() if name.lower() not in _WRITTEN_EACH_TIME}
        return built.url == url and {name.lower(): value for name, value in built.headers.items()} == expected


@dataclass(frozen=True, slots=True)
class SmallRequest:
    """A signed request.

    Args:
        target: The URL behind the server.
        headers: All but `Host`, and those of each attempt.
    """

    template: RequestTemplate
    url: str
    target: str
    headers: Mapping[str, str] = field(repr=False)

    def wire(self, length_bytes: int) -> bytes:
        """Returns the request as it is sent, without its body."""
        template = self.template
        lines = [
            f"{template.shape.method} {self.target} HTTP/1.1",
            f"Host: {template.server.host_header}",
            "Accept-Encoding: identity",
            f"amz-sdk-invocation-id: {uuid4()}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        if template.has_length:
            lines.append(f"Content-Length: {length_bytes}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")


@dataclass(frozen=True, slots=True)
class _Moment:
    """What botocore's signer reads of a request: its time."""

    context: dict[str, str]


def _url_key(key: str) -> str:
    encoded: str = percent_encode(key, safe="/~")
    return encoded


def _server(url: str) -> tuple[Server, str]:
    """Returns the server of a URL, and the URL before the path."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or parts.hostname is None or parts.query or "@" in parts.netloc:
        raise NotSmallError
    usual = _PORTS[parts.scheme]
    host_header = parts.netloc.lower().removesuffix(f":{usual}")
    server = Server(parts.hostname, parts.port or usual, host_header, is_tls=parts.scheme == "https")
    return server, f"{parts.scheme}://{parts.netloc}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
