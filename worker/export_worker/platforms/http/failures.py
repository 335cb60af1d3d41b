"""The reasons of failed requests, for messages."""

import aiohttp

from export_worker.credentials import Redactor
from export_worker.platforms.http.codings import CodingError, UnknownCodingError
from export_worker.platforms.http.responses import one_line, without_quotes
from export_worker.texts.reasons import system_reason

_REASONS: dict[type[Exception], str] = {
    aiohttp.InvalidURL: "the URL cannot be used",
    aiohttp.NonHttpUrlClientError: "the URL cannot be used",
    aiohttp.InvalidUrlClientError: "the URL cannot be used",
    aiohttp.ServerDisconnectedError: "the connection was closed before the response was complete",
}
"""The messages of these errors contain the URL, or the head of the response as far as it arrived."""


def failure_reason(error: Exception, redactor: Redactor) -> str:
    """Returns what failed, in one line without URLs and without what the response contains."""
    if type(error) in _REASONS:
        return _REASONS[type(error)]
    if isinstance(error, CodingError):
        return f"the body is not whole: {error}"
    if isinstance(error, UnknownCodingError):
        return f"the body has a coding that cannot be undone: {one_line(str(error), redactor)}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the response is not valid HTTP: {one_line(without_quotes(error.message), redactor)}"
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        why = one_line(without_quotes(system_reason(str(error.os_error))), redactor)
        return f"cannot connect to {error.host}:{error.port} ({why or 'closed before the end of the TLS handshake'})"
    return one_line(without_quotes(str(error)), redactor) or type(error).__name__
