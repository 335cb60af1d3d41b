"""The gateway's options, as values: secrets are revealed, and nothing refers to the configuration any more."""

from dataclasses import dataclass
from ipaddress import ip_address

from export_producers.gateway.callers.principals import Role
from export_producers.gateway.callers.proxy import ProxyOptions
from export_worker.errors import ConfigError


@dataclass(frozen=True, slots=True)
class NamedKey:
    """The section `gateway.keys.NAME` of the configuration.

    Args:
        key: In clear.
        connections: None for all.
    """

    name: str
    key: str
    role: Role
    connections: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The section `gateway` of the configuration. Fields have the names of its settings.

    Args:
        api_keys: The bearer keys without a name, in clear. Without keys and proxy, every caller is accepted.
        console: Whether to serve the console. None: only with named keys, with a proxy, or without any key, when only
            this machine can reach the gateway.
        presign: Whether operators may download objects by links.
        requests_per_second: Sustained rate of one key in this process.
        burst: Requests that one key may send at once.
        max_streams: Event streams that may be open at the same time.
        keep_alive_s: Interval of comments on an event stream without events. Proxies close silent connections.
        stop_s: Time for running requests when the gateway stops.
        search_metadata: The names of the metadata by which exports are indexed.
    """

    host: str
    port: int
    api_keys: tuple[str, ...]
    requests_per_second: float
    burst: int
    max_streams: int
    keep_alive_s: float
    stop_s: float
    keys: tuple[NamedKey, ...] = ()
    proxy: ProxyOptions | None = None
    console: bool | None = None
    presign: bool = False
    search_metadata: tuple[str, ...] = ()

    @property
    def serves_console(self) -> bool:
        """Whether the gateway serves the console."""
        if self.console is not None:
            return self.console
        return bool(self.keys or self.proxy) or not self.api_keys

    def check(self) -> None:
        """Checks that a gateway with these options is not open to everyone on the network.

        Raises:
            ConfigError: There is no key and the address is not a loopback address, or a key is empty or given twice.
        """
        if any(not key.strip() for key in self.api_keys):
            raise ConfigError("gateway.api_keys: a key is empty")
        seen = {key.strip() for key in self.api_keys}
        for each in self.keys:
            if not each.key.strip():
                raise ConfigError(f"gateway.keys.{each.name}.key: is empty")
            if each.key.strip() in seen:
                raise ConfigError(f"gateway.keys.{each.name}.key: is also another key; each name needs its own key")
            seen.add(each.key.strip())
        if not seen and self.proxy is None and not _is_loopback(self.host):
            raise ConfigError(
                "gateway.api_keys: without a key, the gateway binds only a loopback address, but gateway.host is "
                f'{self.host!r}; set a key, e.g. api_keys = ["env:GATEWAY_KEY"]'
            )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
