"""How the requests of one connection or webhook leave: directly or through a proxy, and with which certificates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import aiohttp
from pydantic import SecretStr
from yarl import URL

from export_worker.credentials import Redactor, reveal
from export_worker.egress.address_policy import AddressPolicy
from export_worker.egress.certificates import Trust, certificate_files, check_certificate_settings, trust
from export_worker.egress.connection_trouble import ProxyLoginError, Trouble, proxy_trouble, tls_trouble
from export_worker.egress.connector import PolicyConnector, origin
from export_worker.egress.network_settings import NetworkSettings
from export_worker.egress.proxies import Proxy, is_bypassed, parse_proxy, proxy_secrets, proxy_variable
from export_worker.egress.watched_files import CHECK_S, WatchedFiles
from export_worker.references.reading import proxy_variables

KNOWN_SECRETS = 28
"""Secrets of files that are masked: at most seven of one read, and those of three earlier ones."""
_LOGIN_NEEDED = 407
"""A status that only proxies send (RFC 9110, 15.5.8)."""


class RequestOptions(TypedDict):
    """The options of one request of aiohttp."""

    proxy: URL | None
    proxy_headers: Mapping[str, str] | None
    ssl: Trust


@dataclass(frozen=True, slots=True)
class _Way:
    """A proxy, and the setting or variable that names it."""

    proxy: Proxy
    setting: str


@dataclass(frozen=True, slots=True)
class _Ways:
    """What the settings lead to, as it is read from files and from the environment.

    Args:
        by_scheme: The proxy of each scheme of a URL.
        own: The certificates for the own server, which may require a client certificate.
        other: The certificates for all other servers.
    """

    by_scheme: Mapping[str, _Way]
    own: Trust
    other: Trust


class Network:
    """Chooses the proxy and the certificates of each request.

    Through a proxy, the worker resolves no names. So the proxy decides which address a name leads to. Before a request
    is sent to a proxy, `PolicyConnector` checks addresses that the URL itself contains.

    Args:
        section: Section of the configuration, for messages, e.g. `connections.gio`.
        settings: The settings of the section.
        own: The configured address. Only its origin receives the client certificate.
        redactor: Masks the passwords of proxies from now on.
        environment: The variables that name proxies; by default those of the process.
        check_s: Seconds between two looks at the files.

    Raises:
        ConfigError: A setting, a file or a variable cannot be used.
    """

    def __init__(
        self,
        section: str,
        settings: NetworkSettings,
        own: URL,
        redactor: Redactor,
        *,
        environment: Mapping[str, str] | None = None,
        check_s: float = CHECK_S,
    ) -> None:
        check_certificate_settings(section, settings)
        self._section = section
        self._settings = settings
        self._own = origin(own)
        self._mask = redactor.rotating(KNOWN_SECRETS)
        variables = proxy_variables() if environment is None else environment
        self._environment = variables if settings.trust_env else {}
        files = [*certificate_files(settings), *_referenced(settings.proxy, settings.client_key_password)]
        self._ways = WatchedFiles(self._read, files, check_s)

    async def options(self, url: URL) -> RequestOptions:
        """Returns the options of a request to a URL."""
        ways = await self._ways.value()
        way = self._way(ways, url)
        return RequestOptions(
            proxy=None if way is None else URL(way.proxy.url),
            proxy_headers=None if way is None else way.proxy.headers(),
            ssl=ways.own if origin(url) == self._own else ways.other,
        )

    async def request(
        self, session: aiohttp.ClientSession, method: str, url: URL, **options: Any
    ) -> aiohttp.ClientResponse:
        """Sends a request over this network, and returns the response. Redirects are not followed.

        Args:
            session: A session with a `connector` of this network.
            method: The HTTP method.
            url: The URL.
            options: Options of aiohttp's request.

        Raises:
            aiohttp.ClientError: No connection, or no valid response; see `trouble`.
        """
        network = await self.options(url)
        response = await session.request(method, url, allow_redirects=False, **network, **options)
        if response.status == _LOGIN_NEEDED and network["proxy"] is not None:
            response.close()
            raise ProxyLoginError
        return response

    def connector(self, policy: AddressPolicy, **options: Any) -> PolicyConnector:
        """Returns a connector for requests with these options."""
        return PolicyConnector(policy, is_proxy=self._is_proxy, **options)

    def trouble(self, error: BaseException) -> Trouble | None:
        """Returns why a connection failed, if the cause is a certificate, TLS or a proxy.

        The server has certainly not received the request.
        """
        # For an https:// address, a proxy refuses before the request, and aiohttp raises an error of its own.
        schemes = ("http", "https") if isinstance(error, ProxyLoginError) else ("https", "http")
        ways = [self._ways.last.by_scheme[scheme] for scheme in schemes if scheme in self._ways.last.by_scheme]
        troubles = (proxy_trouble(error, way.proxy, way.setting) for way in ways)
        return tls_trouble(error, self._section) or next((trouble for trouble in troubles if trouble), None)

    def _is_proxy(self, host: str, port: int) -> bool:
        return any((way.proxy.host, way.proxy.port) == (host, port) for way in self._ways.last.by_scheme.values())

    def _way(self, ways: _Ways, url: URL) -> _Way | None:
        way = ways.by_scheme.get(url.scheme)
        # NO_PROXY matters only if there is a proxy. To read it costs a tenth of a small download.
        return None if way is None or is_bypassed(str(url), self._environment) else way

    def _read(self) -> _Ways:
        password = self._revealed("client_key_password", self._settings.client_key_password)
        self._mask(password)
        own, other = (
            trust(self._section, self._settings, password, with_client_cert=has_cert) for has_cert in (True, False)
        )
        return _Ways(self._read_proxies(), own, other)

    def _read_proxies(self) -> dict[str, _Way]:
        address = self._revealed("proxy", self._settings.proxy)
        if address is not None:
            return dict.fromkeys(("http", "https"), self._read_proxy(f"{self._section}.proxy", address))
        found = {scheme: proxy_variable(f"{scheme}://", self._environment) for scheme in ("http", "https")}
        return {
            scheme: self._read_proxy(variable, self._environment[variable])
            for scheme, variable in found.items()
            if variable is not None
        }

    def _read_proxy(self, setting: str, address: str) -> _Way:
        for secret in proxy_secrets(address):
            self._mask(secret)
        return _Way(parse_proxy(setting, address), setting)

    def _revealed(self, name: str, secret: SecretStr | None) -> str | None:
        return None if secret is None else reveal(secret, f"{self._section}.{name}")


def _referenced(*secrets: SecretStr | None) -> list[Path]:
    """Returns the files that secrets refer to."""
    texts = (secret.get_secret_value() for secret in secrets if secret is not None)
    return [Path(text.removeprefix("file:")) for text in texts if text.startswith("file:")]
