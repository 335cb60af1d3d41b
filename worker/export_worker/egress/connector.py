"""Connects to allowed addresses only, and to the very address that was checked.

Names are resolved here, each address is checked, and the connection goes to one of those: a name that answers
differently a moment later changes nothing.
"""

import socket
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from export_worker.egress.address_policy import AddressPolicy, literal


class AddressRefusedError(aiohttp.ClientError):
    """The request would go to an address that is not allowed. Names the host, and nothing else of the URL."""


def origin(url: URL) -> tuple[str, str, int | None]:
    """Scheme, host and port, the same for `HTTPS://A.cn` and `https://a.cn:443`: credentials go no further."""
    return url.scheme.lower(), (url.host or "").lower(), url.port


class GuardedConnector(aiohttp.TCPConnector):
    """Connects to allowed addresses only. Redirects that aiohttp follows come through here as well.

    Raises, from the request: AddressRefusedError.
    """

    def __init__(self, policy: AddressPolicy, **options: Any) -> None:
        super().__init__(resolver=_GuardedResolver(policy), **options)
        self._policy = policy

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> aiohttp.connector.Connection:
        """Check an address that stands in the URL itself: aiohttp asks no resolver for it."""
        host = req.url.host or ""
        address = literal(host)
        if address is not None and not self._policy.allows_host(host) and not self._policy.allows(address):
            raise _refused(host)
        return await super().connect(req, traces, timeout)


class _GuardedResolver(AbstractResolver):
    """Resolves as aiohttp does, and keeps the allowed addresses."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if self._policy.allows_host(host):
            return found
        allowed = [result for result in found if self._policy.allows(ip_address(result["host"]))]
        if not allowed:
            raise _refused(host)
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def _refused(host: str) -> AddressRefusedError:
    return AddressRefusedError(f"{host} leads to an address that is not public; allow_networks is the mend")
