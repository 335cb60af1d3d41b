"""People whom an authenticating proxy in front of the gateway has identified. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from multidict import CIMultiDictProxy

from export_producers.gateway.callers.principals import Principal, Role

USER_MAX_CHARS = 128
"""Limit of a user's name. It is longer than every address of mail in practice."""
EVERY_GROUP = "*"
"""The group that every user is in."""


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """The section `gateway.proxy` of the configuration.

    Args:
        user_header: The header with the name of the user.
        groups_header: The header with the groups of the user, separated by commas.
        trusted: The addresses of the proxy. From other addresses, the headers are ignored.
        roles: The role of each group, with `*` for all users. A user may do what any of the roles may do.
    """

    user_header: str
    groups_header: str
    trusted: tuple[IPv4Network | IPv6Network, ...]
    roles: Mapping[str, Role]

    def trusts(self, address: str | None) -> bool:
        """Returns whether a connection from an address is one of the proxy."""
        try:
            peer = ip_address((address or "").partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(peer, "ipv4_mapped", None)
        return any((mapped or peer) in network for network in self.trusted)

    def client(self, headers: CIMultiDictProxy[str], address: str | None) -> str | None:
        """Returns from where a request comes: for one of the proxy, the last address that `X-Forwarded-For` has.

        The proxy has added that one. The addresses before it are what its client has stated.
        """
        if not self.trusts(address):
            return address
        last = ",".join(headers.getall("X-Forwarded-For", [])).rpartition(",")[2].strip()
        try:
            return str(ip_address(last))
        except ValueError:
            return address

    def person(self, headers: CIMultiDictProxy[str]) -> Principal | None:
        """Returns the user of a request from the proxy; None if it names none, several, or one without a role.

        A second header with groups is the client's own, which the proxy has not replaced.
        """
        names, groups = headers.getall(self.user_header, []), headers.getall(self.groups_header, [])
        if len(names) != 1 or len(groups) > 1 or not is_user_name(names[0].strip()):
            return None
        roles = self._roles("".join(groups))
        if not roles:
            return None
        # The highest role may do in `/v1` what the others may do. Only the console is not in each role.
        highest = max(roles, key=list(Role).index)
        return Principal(names[0].strip(), highest, kind="person", is_viewer=Role.VIEWER in roles)

    def _roles(self, line: str) -> set[Role]:
        groups = {group.strip() for group in line.split(",")} | {EVERY_GROUP}
        return {role for group, role in self.roles.items() if group in groups}


def is_user_name(name: str) -> bool:
    """Returns whether a text can be the name of a user: printable, and not too long."""
    return 1 <= len(name) <= USER_MAX_CHARS and name.isprintable()
