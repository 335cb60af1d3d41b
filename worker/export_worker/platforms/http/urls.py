"""URLs of a platform: which ones can be used, and how a query string is added."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode

from yarl import URL

from export_worker.errors import ConfigError


def with_query(url: URL, query: Mapping[str, str | Sequence[str]]) -> URL:
    """Returns the URL with further parameters, each encoded once. Existing parameters stay unchanged."""
    if not query:
        return url
    separator = "&" if url.raw_query_string else "?"
    return URL(f"{url}{separator}{urlencode(query, doseq=True, quote_via=quote, safe='')}", encoded=True)


def is_usable_url(url: URL) -> bool:
    """Returns whether a connection to the URL is possible: it has a scheme, a port and a host that IDNA can encode.

    A host that cannot be encoded, or decoded (`xn--`), would raise an unexpected error deep within aiohttp.
    """
    try:
        host = (url.raw_host or "").encode("idna")
        return bool(host and url.host and url.port and url.scheme in {"http", "https"})
    except ValueError:
        return False


def parse_base_url(connection: str, base_url: str) -> URL:
    """Returns the setting `base_url` of a connection as a URL, without a slash at its end.

    Raises:
        ConfigError: It cannot be used.
    """
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if not is_usable_url(url):
        raise ConfigError(f"connections.{connection}.base_url: must be like https://op.example.cn")
    # "https://host" and "https://host/" are the same: paths are appended with a slash of their own.
    return URL(str(url).rstrip("/"), encoded=True)
