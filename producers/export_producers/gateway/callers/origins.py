"""Refuses requests that a page of another site makes a browser send. Pure.

A browser sends such requests with the rights of its user: with the login at a proxy, or, to a gateway without keys,
with the rights of every program on the machine. If the owner of a site changes the address of its name to a loopback
address (DNS rebinding), the browser treats the gateway as a part of the site. But `Host` then has the name of the site.
"""

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from multidict import CIMultiDictProxy

OWN_SITES = {"same-origin", "none"}
"""Values of `Sec-Fetch-Site` of requests that a page of the gateway, or the user, has caused."""


def is_local(headers: CIMultiDictProxy[str], header: str = "Host") -> bool:
    """Returns whether a request is addressed to this machine by a name that no other site can have.

    Args:
        header: The header with the name.
    """
    hosts = headers.getall(header, [])
    return len(hosts) == 1 and _is_loopback(urlsplit(f"//{hosts[0]}").hostname if _is_url_part(hosts[0]) else None)


def _is_url_part(host: str) -> bool:
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return False
    return parts.netloc == host and parts.username is None


def _netloc_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _is_loopback(name: str | None) -> bool:
    try:
        return name == "localhost" or ip_address(name or "").is_loopback
    except ValueError:
        return False


def is_loaded_by_other_site(headers: CIMultiDictProxy[str]) -> bool:
    """Returns whether a page of another site loads something as a part of itself. A link that a user follows is none.

    The page cannot read it, but would keep streams open and make the gateway call platforms.
    """
    return not set(headers.getall("Sec-Fetch-Site", [])) <= OWN_SITES and headers.get("Sec-Fetch-Mode") != "navigate"


def is_of_own_site(headers: CIMultiDictProxy[str], hosts: Sequence[str]) -> bool:
    """Returns whether a request comes from no browser, from a page of the gateway, or from the user.

    A page that sends no referrer, such as those of the console, has the origin `null`. Then only the site counts.

    Args:
        hosts: The names, each with its port, under which the browser may know the gateway.
    """
    sites = headers.getall("Sec-Fetch-Site", [])
    if sites and not set(sites) <= OWN_SITES:
        return False
    origins = [origin for origin in headers.getall("Origin", []) if not (sites and origin == "null")]
    return all(_netloc_of(origin) in {host.lower() for host in hosts} for origin in origins)
