"""Hosts of URLs and settings in one spelling. The same host can be written as `LOCALHOST.` or `[0:0:0:0:0:0:0:1]`."""

import re
from ipaddress import ip_address

_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]*%\\]+)(?::(?P<port>[0-9]{1,5}))?")
_PORT_MAX = 65_535


def canonical_host(host: str) -> str:
    """Returns a host in lower case, without brackets and without the dot at its end. An IP address has its short form.

    A name in another script is not changed; see `allowed_hosts.ascii_host`.
    """
    name = host.strip("[]").rstrip(".").lower()
    try:
        return str(ip_address(name))
    except ValueError:
        return name


def split_host_and_port(text: str) -> tuple[str, int | None]:
    """Returns the canonical host and the port of `host` or `host:port`. An IPv6 address with a port needs brackets.

    Raises:
        ValueError: The text is neither of them.
    """
    try:
        return str(ip_address(text)), None
    except ValueError:
        found = _HOST_AND_PORT.fullmatch(text)
    port = None if found is None or found["port"] is None else int(found["port"])
    if found is None or port == 0 or (port or 0) > _PORT_MAX or not canonical_host(found["host"]):
        raise ValueError("must be a host or host:port, such as files.example.cn:8443 or [2001:db8::1]:8443")
    if found["host"].startswith("["):
        ip_address(found["host"][1:-1])
    return canonical_host(found["host"]), port
