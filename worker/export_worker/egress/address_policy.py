"""Defines which network addresses a request may reach: no private ones, unless the configuration allows them.

An address can come from outside: from a redirect, a link in a response, or a foreign DNS server. Such an address could
belong to the worker's own network: to Redis, an administration page, or a cloud's metadata service. This module has the
rules; `connector` applies them to each connection.
"""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

CLOUD_AGENT_NETWORKS = (ip_network("168.63.129.16/32"),)
"""Addresses that are public by number but internal: Azure's agent endpoint, which serves a machine's settings. The
metadata services of other clouds have link-local, private or shared addresses, and are refused for that reason."""

_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_IPV6 = ip_network("2000::/3")
"""All global IPv6 addresses that IANA has assigned so far. Python's `is_global` also accepts addresses outside of this
range: site-local addresses, NAT64 within a network, and old forms that contain an IPv4 address."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The addresses that are allowed in addition to public ones.

    Args:
        hosts: Names or addresses from the configuration. Every address that they resolve to is allowed.
        networks: Private networks that any host name may resolve to.
    """

    hosts: Collection[str] = ()
    networks: Collection[Network] = ()

    def allows_host(self, host: str) -> bool:
        """Whether the configuration names this host."""
        return _normalized(host) in {_normalized(known) for known in self.hosts}

    def allows(self, address: Address) -> bool:
        """Whether a request may reach this address, whichever host name resolved to it."""
        inner = _embedded_ipv4(address)
        return is_public(inner) or any(inner in network or address in network for network in self.networks)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the Internet: not private, loopback, link-local, shared, multicast or reserved."""
    inner = _embedded_ipv4(address)
    if isinstance(inner, IPv6Address) and inner not in _GLOBAL_IPV6:
        return False
    return inner.is_global and not inner.is_multicast and not any(inner in network for network in CLOUD_AGENT_NETWORKS)


def is_fixed_host(host: str) -> bool:
    """Whether a host means the same address on every machine's resolver: an IP address, or `localhost` (RFC 6761)."""
    name = _normalized(host)
    return parse_address(host) is not None or name == "localhost" or name.endswith(".localhost")


def parse_address(host: str) -> Address | None:
    """Returns the IP address that a URL's host consists of, or None if the host is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _embedded_ipv4(address: Address) -> Address:
    """Returns the IPv4 address that an IPv6 address contains, or else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _normalized(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()
