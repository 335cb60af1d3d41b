"""Connects only to addresses that an address policy allows.

The connector resolves a host name, checks each address, and connects to one of the checked addresses. If the name
resolves to another address a moment later (DNS rebinding), the connection still uses the checked address.

A request through a proxy is different: the proxy resolves the host name, and decides which addresses it may lead to.
The connector checks what it can know: addresses in the URL, in any spelling, and names of the own machine.
"""

import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from export_worker.egress.address_policy import AddressPolicy
from export_worker.egress.allowed_hosts import ascii_host
from export_worker.egress.hosts import canonical_host


class AddressRefusedError(aiohttp.ClientError):
    """The address policy does not allow the request. The message names the host and no other part of the URL."""


def origin(url: URL) -> tuple[str, str, int | None]:
    """Returns scheme, host and port: the same for `HTTPS://A.cn` and `https://a.cn:443`.

    A credential is sent only to the origin that it belongs to.
    """
    return url.scheme.lower(), (url.host or "").lower(), url.port


class PolicyConnector(aiohttp.TCPConnector):
    """Connects only to allowed addresses, also for redirects that aiohttp follows.

    A request to an address that is not allowed raises AddressRefusedError.

    Args:
        policy: The allowed addresses.
        is_proxy: Whether a host and a port are those of a configured proxy, which may have any address.
        options: Options of aiohttp's connector.
    """

    def __init__(
        self, policy: AddressPolicy, *, is_proxy: Callable[[str, int], bool] = lambda *_: False, **options: Any
    ) -> None:
        policy = replace(policy, hosts=frozenset(map(ascii_host, policy.hosts)))
        super().__init__(resolver=_PolicyResolver(policy, is_proxy), **options)
        self._policy = policy

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> aiohttp.connector.Connection:
        """Checks a URL whose host is an IP address: aiohttp does not call the resolver for it."""
        host = req.url.raw_host or ""
        if not (self._policy.allows_written(host) if req.proxy is None else self._policy.allows_unresolved(host)):
            raise _refused(host)
        if req.proxy is not None and req.proxy_headers is not None and not req.is_ssl():
            # A request without TLS opens no tunnel, to which alone aiohttp adds these headers.
            req.headers.update(req.proxy_headers)
        return await super().connect(req, traces, timeout)


class _PolicyResolver(AbstractResolver):
    """Resolves host names as aiohttp does, and returns only the allowed addresses."""

    def __init__(self, policy: AddressPolicy, is_proxy: Callable[[str, int], bool]) -> None:
        self._policy = policy
        self._is_proxy = is_proxy
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        resolved = await self._resolver.resolve(host, port, family)
        if self._policy.allows_host(host) or self._is_proxy(canonical_host(host), port):
            return resolved
        allowed = [result for result in resolved if self._policy.allows(ip_address(result["host"]))]
        if not allowed:
            raise _refused(host)
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def _refused(host: str) -> AddressRefusedError:
    return AddressRefusedError(f"{host} leads to an address that is not public; set allow_networks to allow it")
