"""What a platform's HTTP answer means: the value it carries, or an error of our tree. Pure: no I/O.

No message of an error shows a query string (a token may stand there), a control character or a known secret.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from export_worker.credentials import Redactor
from export_worker.errors import (
    AuthFailedError,
    PlatformError,
    PlatformMalformedError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
)

EXCERPT_CHARS = 300
"""Of a body, in a message: enough for the sentence of a JSON error, short enough for one line of a log."""
RETRY_AFTER_MAX_S = 3600.0
"""A gateway that says "next year" must not park an export: after an hour we look for ourselves."""

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One answer, read to its end.

    Args:
        call: Method and path of the question, for messages.
        headers: Found without regard to case.
        body: Decompressed.
    """

    call: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def one_line(text: str, redactor: Redactor, limit: int = EXCERPT_CHARS) -> str:
    """The text without control characters and known secrets, cut to `limit` characters.

    Masked before it is cut: the first half of a secret would not be known as one.
    """
    printable = _UNPRINTABLE.sub(" ", text.encode(errors="replace").decode())
    masked = redactor.text(printable).strip()
    return masked if len(masked) <= limit else masked[: limit - 1] + "…"


def json_value(answer: HttpResponse, redactor: Redactor) -> Any:
    """The JSON value that a good answer carries.

    Raises:
        PlatformMalformedError: The body is not JSON.
    """
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise PlatformMalformedError(_message(answer, "is not JSON", redactor)) from None


def error_for(answer: HttpResponse, redactor: Redactor) -> PlatformError | None:
    """The error that the answer's status stands for; None when it is a good one (2xx)."""
    status = answer.status
    if 200 <= status < 300:
        return None
    message = _message(answer, f"is HTTP {status}", redactor)
    wait_s = retry_after_s(answer.headers.get("Retry-After"), datetime.now(UTC))
    if status in {401, 403}:
        return AuthFailedError(message)
    if status == 429:
        return PlatformThrottledError(message, retry_after_s=wait_s)
    # 408 is the server's own word for a timeout.
    if status >= 500 or status == 408:
        return PlatformUnavailableError(message, retry_after_s=wait_s)
    if 300 <= status < 400:
        return PlatformRefusedError(f"{message} (a redirect, which is not followed; is base_url right?)")
    return PlatformRefusedError(message)


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110, 10.2.3: seconds or a date), 0 to `RETRY_AFTER_MAX_S`.

    None when there is no header, or none that can be read.
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


def _message(answer: HttpResponse, what: str, redactor: Redactor) -> str:
    excerpt = one_line(answer.body.decode(errors="replace"), redactor)
    message = f"{answer.call}: the answer {what}"
    return f"{message}: {excerpt}" if excerpt else message
