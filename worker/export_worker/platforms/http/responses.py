"""Turns an HTTP response of a platform into its value, or into an error of this project. Pure: no I/O.

Error messages contain no query string (it may hold a token), no control character and no known secret.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from export_worker.credentials import EXCERPT_CHARACTERS, Redactor
from export_worker.errors import (
    AuthFailedError,
    PlatformError,
    PlatformMalformedError,
    PlatformNotFoundError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
)
from export_worker.platforms.http.pages import is_quotable, size_of_unquoted, text_of

RETRY_AFTER_MAX_S = 3600.0
"""Longest accepted Retry-After: a gateway that asks for a wait until next year must not block an export."""

_QUOTED = re.compile(
    r":?(?:\s|\\n)*\bb\\*['\"].*"  # bytes
    r"|(?:(?<=reading:)|(?<=header:)|(?<=status line)) ['\"].*",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One response with its whole body.

    Args:
        call: Method and path of the request, for messages.
        headers: Headers, found without regard to case.
        body: Decompressed body.
        starts_work: The request starts work on the platform. So an error whose cause leaves open whether the platform
            has started the work is `unclear`.
    """

    call: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    starts_work: bool = False


def one_line(text: str, redactor: Redactor, limit: int = EXCERPT_CHARACTERS) -> str:
    """Returns the text on one line, without control characters and known secrets, cut to `limit` characters."""
    return redactor.excerpt(text, limit)


def excerpt_of_body(body: bytes, redactor: Redactor) -> str:
    """Returns the beginning of a body as `one_line` does.

    Any body may be cut: only its first bytes are read, and only what arrives in time.
    """
    return redactor.excerpt(text_of(redactor.masked_bytes(body, is_cut=True)), is_cut=True)


def excerpt_of_page(body: bytes, redactor: Redactor) -> str:
    """Returns the excerpt of a body that stands in place of rows, or only its size if it may have rows of users."""
    return excerpt_of_body(body, redactor) if is_quotable(text_of(body).rstrip()) else size_of_unquoted(body)


def without_quotes(text: str) -> str:
    """Returns a message of aiohttp without what it quotes of a response.

    aiohttp cuts what it quotes, so half of a secret may remain. It also quotes the rows of users.
    """
    return _QUOTED.sub("", text)


def storable_text(value: Any, limit_chars: int) -> str | None:
    """Returns the value if it is a non-empty text that can be stored in Redis and sent to the platform again.

    JSON can carry half a surrogate pair, which cannot be encoded as UTF-8.

    Args:
        value: A value from a platform's response.
        limit_chars: Longest accepted text.

    Returns:
        None when the value is no text, is empty or too long, or contains a surrogate.
    """
    if not isinstance(value, str) or not 0 < len(value) <= limit_chars:
        return None
    return None if any("\ud800" <= char <= "\udfff" for char in value) else value


def json_value(response: HttpResponse, redactor: Redactor) -> Any:
    """Returns the JSON value of a successful response.

    Raises:
        PlatformMalformedError: The body is not JSON.
    """
    try:
        return json.loads(response.body, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        message = _message(response, "is not JSON", redactor)
        raise PlatformMalformedError(message, unclear=response.starts_work) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns one JSON object. The parser is written in C: only calls of Python let other threads run in between."""
    return dict(pairs)


def error_for(response: HttpResponse, redactor: Redactor, stated: str | None = None) -> PlatformError | None:
    """Returns the error for the response's status, or None when the status is 2xx.

    Args:
        stated: What the platform states in its body, as one line. Default: an excerpt of the body.
    """
    status = response.status
    if 200 <= status < 300:
        return None
    message = _message(response, f"is HTTP {status}", redactor, stated)
    wait_s = retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC))
    if status in {401, 403}:
        return AuthFailedError(message)
    if status == 429:
        return PlatformThrottledError(message, retry_after_s=wait_s)
    # 408 means that the server waited too long for the request: a retry can succeed.
    if status >= 500 or status == 408:
        # With 503 and Retry-After, a server refuses the request for now. A gateway sends any other of these also when
        # its time for the platform's response has passed.
        refused = status == 503 and wait_s is not None
        return PlatformUnavailableError(message, retry_after_s=wait_s, unclear=response.starts_work and not refused)
    if 300 <= status < 400:
        return PlatformRefusedError(f"{message} (a redirect, which is not followed; is base_url right?)")
    # The page of a gateway with the same status does not state what the platform knows.
    unknown = status in {404, 410} and _is_json_object(response.body)
    return PlatformNotFoundError(message) if unknown else PlatformRefusedError(message)


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


@contextmanager
def reading_answer(*, starts_work: bool) -> Iterator[None]:
    """Marks errors about the content of a response as `unclear` if its request starts work on the platform.

    The platform has received the request, but its response does not show whether it has started the work.

    Args:
        starts_work: See `HttpResponse`.
    """
    try:
        yield
    except (PlatformMalformedError, PlatformUnavailableError) as error:
        error.unclear = error.unclear or starts_work
        raise


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Returns the seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date).

    Returns:
        0 to `RETRY_AFTER_MAX_S`; None when there is no header or it cannot be parsed.
    """
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return min(float(text), RETRY_AFTER_MAX_S)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), RETRY_AFTER_MAX_S)


def _message(response: HttpResponse, what: str, redactor: Redactor, stated: str | None = None) -> str:
    shown = stated or excerpt_of_body(response.body, redactor)
    message = f"{response.call}: the response {what}"
    return f"{message}: {shown}" if shown else message
