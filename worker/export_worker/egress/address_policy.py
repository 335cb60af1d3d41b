"""Which addresses a request may go to: no private one unless the configuration allows it.

An address that comes from outside (a redirect, a link in an answer, a name that somebody else serves) could lead into
the network that the worker stands in: to Redis, to an administrator's page, to a cloud's metadata service. This module
only decides; `guard` asks it for each connection.
"""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

SERVICES = (ip_network("168.63.129.16/32"),)
"""Public by its number, but inside: Azure's agent endpoint, which hands out a machine's settings. The metadata services
of the other clouds have link-local, private or shared addresses, and are refused as such."""

_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_IPV6 = ip_network("2000::/3")
"""All that is handed out of IPv6 (IANA). Python calls public what is in no list of its own: site-local addresses, NAT64
within a network, and old forms that hold an IPv4 address."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Which addresses are allowed besides public ones.

    Args:
        hosts: Names or addresses that the configuration itself names; whatever they resolve to is allowed.
        networks: Private networks that any name may lead into.
    """

    hosts: Collection[str] = ()
    networks: Collection[Network] = ()

    def allows_host(self, host: str) -> bool:
        """Whether the configuration names this very host."""
        return _plain(host) in {_plain(known) for known in self.hosts}

    def allows(self, address: Address) -> bool:
        """Whether a request may go to this address, whatever name led to it."""
        inner = _inner(address)
        return is_public(inner) or any(inner in network or address in network for network in self.networks)


def is_public(address: Address) -> bool:
    """Whether an address is one of the Internet: not private, loopback, link-local, shared, multicast or reserved."""
    inner = _inner(address)
    if isinstance(inner, IPv6Address) and inner not in _GLOBAL_IPV6:
        return False
    return inner.is_global and not inner.is_multicast and not any(inner in network for network in SERVICES)


def means_itself(host: str) -> bool:
    """Whether a host names one address and no other, whoever resolves it: an address, or `localhost` (RFC 6761)."""
    return literal(host) is not None or _plain(host) == "localhost" or _plain(host).endswith(".localhost")


def literal(host: str) -> Address | None:
    """The address that a URL's host is, without asking anybody."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()
