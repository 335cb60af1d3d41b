"""Going on in the middle of a file over HTTP: what to ask, and what an answer must say to be believed (RFC 9110)."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import aiohttp

from export_worker.platforms.base import Mark

LAST_MODIFIED_AGE_S = 1.0
"""A file may be written twice within the second that Last-Modified tells; a later Date shows that this one is over."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def validator_of(headers: Mapping[str, str]) -> str | None:
    """What tells this version of a file from every other, fit for If-Range; None when the head has nothing so strong.

    Args:
        headers: Of the answer, by names of any case.
    """
    etag = headers.get("ETag")
    if etag is not None:
        return etag if etag.startswith('"') else None
    modified, date = headers.get("Last-Modified"), headers.get("Date")
    if modified is None or date is None:
        return None
    try:
        age_s = (parsedate_to_datetime(date) - parsedate_to_datetime(modified)).total_seconds()
    except (ValueError, TypeError):
        return None
    return modified if age_s >= LAST_MODIFIED_AGE_S else None


def range_headers(mark: Mark) -> dict[str, str]:
    """Ask for the rest of this very version, and for the whole file if there is another by now."""
    return {"Range": f"bytes={mark.offset_bytes}-", "If-Range": mark.validator}


def goes_on(response: aiohttp.ClientResponse, mark: Mark) -> bool:
    """Whether the answer is exactly the rest that was asked for. Not every server that knows Range knows If-Range."""
    if response.status != 206 or response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return False
    told = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if told is None or tuple(map(int, told.groups())) != (mark.offset_bytes, mark.total_bytes - 1, mark.total_bytes):
        return False
    if mark.validator.startswith('"'):
        return response.headers.get("ETag") == mark.validator
    # An answer to If-Range need not repeat it.
    return response.headers.get("Last-Modified", mark.validator) == mark.validator
