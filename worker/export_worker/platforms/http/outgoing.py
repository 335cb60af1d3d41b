"""A request as it is sent, and the credential that authenticates it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import urlencode

from multidict import CIMultiDict
from yarl import URL

from export_worker.platforms.http.urls import with_query


@dataclass(frozen=True, slots=True)
class Credential:
    """What one request sends to authenticate. The repr shows none of it.

    Args:
        headers: Headers such as `Authorization`.
        query: Parameters of the query string, for platforms that expect the token there.
        sign: Returns what signs one request; see `Outgoing`. It is called right before each request is sent.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    sign: "Callable[[Outgoing], Credential] | None" = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request as it is sent.

    Args:
        method: HTTP method.
        url: Complete URL.
        headers: Those that the driver and the credential set. A signature also sees `Host`.
        body: The complete body. Empty if there is none, or if it is streamed.
        is_streamed: The body is sent piece by piece, so it cannot be signed.
    """

    method: str
    url: URL
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    is_streamed: bool = False

    def with_credential(self, credential: Credential) -> "Outgoing":
        """Returns the request with a credential, and signed if the credential signs."""
        url, headers = with_query(self.url, credential.query), merged_headers(self.headers, credential.headers)
        request = replace(self, url=url, headers=headers)
        if credential.sign is None:
            return request
        host = url.host_port_subcomponent or ""  # as aiohttp sends it
        signature = credential.sign(replace(request, headers=merged_headers(headers, {"Host": host})))
        return request.with_credential(replace(signature, sign=None))


def merged_headers(*parts: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the headers of all parts. The later one of two with the same name replaces the other, in any case."""
    merged = CIMultiDict[str]()
    for part in parts:
        merged.update(part)
    return merged


def encoded_body(method: str, value: Any, form: Mapping[str, str] | None) -> tuple[bytes, str]:
    """Returns a body of JSON or of a form, and its media type. Each is empty if there is none.

    A POST without a body is labelled as JSON. aiohttp would label it as bytes. The platforms' documents say JSON, and a
    server may refuse the rest.
    """
    if value is not None:
        return json.dumps(value).encode(), "application/json"
    if form is not None:
        return urlencode(form).encode(), "application/x-www-form-urlencoded"
    return b"", "application/json" if method in {"POST", "PUT", "PATCH"} else ""


class Auth(Protocol):
    """Provides credentials, and new ones when the platform refuses the current one."""

    async def credential(self) -> Credential:
        """Returns the credential to use now.

        Raises:
            PlatformError: There was none yet, and none could be obtained.
        """

    async def renew(self, rejected: Credential) -> Credential | None:
        """Returns a credential with which to repeat a call that got 401; None when there is no other.

        Args:
            rejected: The credential that the platform refused.

        Raises:
            PlatformError: A new credential could not be obtained.
        """

    async def close(self) -> None:
        """Stops tasks that still run."""
