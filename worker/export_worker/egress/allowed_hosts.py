"""Which hosts and ports a download may come from."""

from collections.abc import Iterable

from yarl import URL

from export_worker.egress.hosts import canonical_host, split_host_and_port


def ascii_host(host: str) -> str:
    """Returns a host as requests contain it: canonical, and a name in another script as punycode.

    A name that cannot be encoded is returned unchanged. No request can be sent to it.
    """
    if host.isascii():
        return canonical_host(host)
    try:
        return canonical_host(URL.build(scheme="http", host=host).raw_host or host)
    except ValueError:
        return canonical_host(host)


class AllowedHosts:
    """The connection's own host and port, and the entries of its setting `allow_hosts`.

    Another port of the own host may belong to another program, such as an administration page.

    Args:
        own: The base URL of the connection.
        entries: Each is `host`, which allows all of its ports, or `host:port`.

    Raises:
        ValueError: An entry is neither.
    """

    def __init__(self, own: URL, entries: Iterable[str]) -> None:
        self._own = _host_and_port(own)
        self._allowed = {(ascii_host(host), port) for host, port in map(split_host_and_port, entries)}

    def refusal(self, url: URL) -> str | None:
        """Returns why a download must not come from this URL; None if it may."""
        host, port = _host_and_port(url)
        if (host, port) == self._own or not self._allowed.isdisjoint({(host, None), (host, port)}):
            return None
        if host == self._own[0]:
            return f"port {port} is not the connection's own; allow_hosts can allow it as {_joined(host, port)}"
        return f"{host} is neither the connection's host nor in allow_hosts"


def _host_and_port(url: URL) -> tuple[str, int | None]:
    return ascii_host(url.raw_host or ""), url.port


def _joined(host: str, port: int | None) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
