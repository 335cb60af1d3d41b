"""The gateway's options, as values: secrets are revealed, and nothing refers to the configuration any more."""

from dataclasses import dataclass
from ipaddress import ip_address

from export_worker.errors import ConfigError


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The section `gateway` of the configuration. Fields have the names of its settings.

    Args:
        api_keys: The bearer keys, in clear. Without keys, every caller is accepted.
        console: Whether to serve the console. None: only without keys, when only this machine can reach the gateway.
        requests_per_second: Sustained rate of one key in this process.
        burst: Requests that one key may send at once.
        max_streams: Event streams that may be open at the same time.
        keep_alive_s: Interval of comments on an event stream without events. Proxies close silent connections.
        stop_s: Time for running requests when the gateway stops.
    """

    host: str
    port: int
    api_keys: tuple[str, ...]
    requests_per_second: float
    burst: int
    max_streams: int
    keep_alive_s: float
    stop_s: float
    console: bool | None = None

    @property
    def serves_console(self) -> bool:
        """Whether the gateway serves the console."""
        return not self.api_keys if self.console is None else self.console

    def check(self) -> None:
        """Checks that a gateway with these options is not open to everyone on the network.

        Raises:
            ConfigError: There is no key and the address is not a loopback address, or a key is empty.
        """
        if any(not key.strip() for key in self.api_keys):
            raise ConfigError("gateway.api_keys: a key is empty")
        if not self.api_keys and not _is_loopback(self.host):
            raise ConfigError(
                "gateway.api_keys: without a key, the gateway binds only a loopback address, but gateway.host is "
                f'{self.host!r}; set a key, e.g. api_keys = ["env:GATEWAY_KEY"]'
            )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
