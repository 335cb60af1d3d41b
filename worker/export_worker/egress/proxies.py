"""Proxies: which one a request uses, from a setting or from the variables of the environment."""

from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from urllib.parse import SplitResult, unquote, urlsplit

from export_worker.egress.address_policy import parse_address
from export_worker.egress.hosts import canonical_host, split_host_and_port
from export_worker.errors import ConfigError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_VARIABLES = {"https": ("https_proxy", "all_proxy"), "http": ("http_proxy", "all_proxy")}
"""The variables of a scheme. The first one that is set applies, in lower case before upper case."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. Its repr and its text show no login.

    Args:
        scheme: `http` or `https`.
        host: Its canonical host.
        port: Its port.
        login: User and password, for Basic authentication.
    """

    scheme: str
    host: str
    port: int
    login: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Its address, without user and password."""
        return f"{self.scheme}://{self}"

    def headers(self) -> dict[str, str]:
        """Returns the headers for the proxy alone."""
        return {} if self.login is None else {"Proxy-Authorization": f"Basic {_basic(self.login)}"}


def parse_proxy(setting: str, address: str) -> Proxy:
    """Returns the proxy of an address. Without a scheme, it is an http:// proxy, as for curl.

    Args:
        setting: Name of the setting or variable, for the error.
        address: The address, which may contain a login.

    Raises:
        ConfigError: It is no address of a proxy. The message does not show it: it may contain a password.
    """
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        usable = parts.scheme in _DEFAULT_PORTS and parts.hostname and parts.port != 0
        # A `/`, `?` or `#` in a password that is not percent-encoded would end the host.
        (parts.hostname or "").encode("idna")  # as the connection will do
        usable = usable and parts.path in {"", "/"} and not parts.query and not parts.fragment
        login = _login(parts)
    except ValueError:
        usable, parts, login = False, SplitResult("", "", "", "", ""), None
    if not usable:
        allowed = "must be like http://proxy.example:3128, or https:// with USER:PASSWORD@ before the host"
        raise ConfigError(f"{setting}: {allowed}; special characters in the password must be percent-encoded")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return Proxy(parts.scheme, canonical_host(parts.hostname or ""), port, login)


def _login(parts: SplitResult) -> tuple[str, str] | None:
    if parts.username is None:
        return None
    user, password = unquote(parts.username), unquote(parts.password or "")
    if ":" in user:
        raise ValueError("Basic authentication allows no colon in a user")
    return user, password


def proxy_secrets(address: str) -> list[str]:
    """Returns the password in the address of a proxy, and the forms in which a request contains it.

    An address that cannot be used is returned itself: it may contain a password in an unknown place.
    """
    try:
        login = parse_proxy("", address).login
    except ConfigError:
        return [address]
    if login is None:
        return []
    return [login[1], ":".join(login), _basic(login)]


def _basic(login: tuple[str, str]) -> str:
    return b64encode(":".join(login).encode()).decode()


def environment_secrets(variables: Mapping[str, str]) -> Iterable[str]:
    """Yields the passwords of all proxies that the variables of the environment name."""
    for name, value in variables.items():
        if name.lower() != "no_proxy":
            yield from proxy_secrets(value)


def proxy_variable(url: str, environment: Mapping[str, str]) -> str | None:
    """Returns the variable whose proxy applies to a URL; None if there is none, or `NO_PROXY` names the host."""
    if is_bypassed(url, environment):
        return None
    names = (name for lower in _VARIABLES.get(urlsplit(url).scheme, ()) for name in (lower, lower.upper()))
    return next((name for name in names if environment.get(name)), None)


def is_bypassed(url: str, environment: Mapping[str, str]) -> bool:
    """Whether `NO_PROXY` names the host of a URL.

    Its entries are separated by commas: a host, which includes the names below it; a host with a port; an address or
    a network; or `*` for all hosts.
    """
    parts = urlsplit(url)
    host, port = canonical_host(parts.hostname or ""), parts.port or _DEFAULT_PORTS.get(parts.scheme)
    entries = (environment.get("no_proxy") or environment.get("NO_PROXY") or "").split(",")
    return any(_includes(entry.strip(), host, port) for entry in entries)


def _includes(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    address = parse_address(host)
    try:
        if address is not None and "/" in entry:
            return address in ip_network(entry, strict=False)
        name, only_port = split_host_and_port(entry.lstrip("*."))
    except ValueError:
        return False
    return only_port in {None, port} and (host == name or (address is None and host.endswith(f".{name}")))
