"""Defines which network addresses a request may reach: no private ones, unless the configuration allows them.

An address can come from outside: from a redirect, a link in a response, or a foreign DNS server. Such an address could
belong to the worker's own network: to Redis, an administration page, or a cloud's metadata service. This module has the
rules; `connector` applies them to each connection.
"""

import socket
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from export_worker.egress.hosts import canonical_host

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

SPECIAL_NETWORKS: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by the customers of a provider; metadata of Alibaba Cloud
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's agent endpoint, which serves a machine's settings
            "169.254.0.0/16",  # link-local; metadata of most clouds
            "172.16.0.0/12",
            "192.0.0.0/24",  # IETF protocol assignments; metadata of Oracle Cloud
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112: DNS servers for private addresses
            "192.52.193.0/24",  # AMT relays
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks within a network
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and the broadcast address
            "2001::/23",  # IETF protocol assignments, Teredo among them
            "2001:db8::/32",  # documentation
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
"""Addresses that no server on the Internet has: the special-purpose registries of IANA for IPv4 and IPv6 (RFC 6890),
and public addresses that clouds use internally. The list of Python's `is_global` depends on the version of Python."""

_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_IPV6 = ip_network("2000::/3")
"""All global IPv6 addresses that IANA has assigned so far. Outside are loopback, private, link-local and site-local
addresses, multicast, NAT64 within a network, and old forms that contain an IPv4 address."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The addresses that are allowed in addition to public ones.

    Args:
        hosts: Names or addresses from the configuration, as requests contain them. Every address that they resolve to
            is allowed.
        networks: Private networks that any host name may resolve to.
    """

    hosts: Collection[str] = ()
    networks: Collection[Network] = ()

    def allows_host(self, host: str) -> bool:
        """Whether the configuration names this host."""
        return canonical_host(host) in {canonical_host(known) for known in self.hosts}

    def allows(self, address: Address) -> bool:
        """Whether a request may reach this address, whichever host name resolved to it."""
        inner = _embedded_ipv4(address)
        return is_public(inner) or any(inner in network or address in network for network in self.networks)

    def allows_written(self, host: str) -> bool:
        """Whether the URL of a request may contain this host: a name, whose addresses are checked later, or an address.

        aiohttp resolves no host that is an address.
        """
        address = parse_address(host)
        return address is None or self.allows_host(host) or self.allows(address)

    def allows_unresolved(self, host: str) -> bool:
        """Whether a proxy may be asked for this host. It resolves names itself, so only addresses can be checked.

        An address may have an old spelling, such as 127.1 or 2130706433, that a proxy understands.
        """
        if self.allows_host(host):
            return True
        name = canonical_host(host)
        address = parse_address(name) or _parse_old_spelling(name)
        return self.allows(address) if address is not None else not is_fixed_host(name)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the Internet: not private, loopback, link-local, shared, multicast or reserved."""
    inner = _embedded_ipv4(address)
    if isinstance(inner, IPv6Address) and inner not in _GLOBAL_IPV6:
        return False
    return not any(inner in network for network in SPECIAL_NETWORKS)


def is_fixed_host(host: str) -> bool:
    """Whether a host means the same address on every machine's resolver: an IP address, or `localhost` (RFC 6761)."""
    name = canonical_host(host)
    return parse_address(host) is not None or name == "localhost" or name.endswith(".localhost")


def parse_address(host: str) -> Address | None:
    """Returns the IP address that a URL's host consists of, or None if the host is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _parse_old_spelling(host: str) -> IPv4Address | None:
    """Returns the address of a host such as `127.1`, `0x7f.1` or `2130706433`, as C libraries understand it."""
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _embedded_ipv4(address: Address) -> Address:
    """Returns the IPv4 address that an IPv6 address contains, or else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
