"""Resuming a download in the middle of a file: the request headers, and the check of the response (RFC 9110)."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import aiohttp

from export_worker.platforms.base import ResumePoint
from export_worker.platforms.http.codings import UnknownCodingError, codings_of

LAST_MODIFIED_AGE_S = 1.0
"""A file may change twice within the second that Last-Modified states. A later Date shows that the second is over."""

RANGE_FIELDS = frozenset({"Range", "If-Range"})
"""The fields of `range_headers`."""
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,20})-([0-9]{1,20})/([0-9]{1,20})")
_ANY_CONTENT_RANGE = re.compile(r"(?i)bytes ([0-9]{1,20})-([0-9]{1,20})/([0-9]{1,20}|\*)")


def validator_of(headers: Mapping[str, str]) -> str | None:
    """Returns the strong validator of the response, for use in If-Range.

    Args:
        headers: Headers of the response, found without regard to case.

    Returns:
        The strong ETag, or a Last-Modified that identifies one version. None when the response has neither.
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


def range_headers(resume_point: ResumePoint) -> dict[str, str]:
    """Returns headers that request the rest of this version, or the whole file if the version has changed."""
    return {"Range": f"bytes={resume_point.offset_bytes}-", "If-Range": resume_point.validator}


def is_requested_range(response: aiohttp.ClientResponse, resume_point: ResumePoint, file_name: str) -> bool:
    """Returns whether the response is exactly the requested rest of the file with this name.

    The check is needed because some servers support Range but ignore If-Range.
    """
    if response.status != 206 or not _has_plain_body(response, file_name):
        return False
    content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    total_bytes = resume_point.total_bytes
    requested = (resume_point.offset_bytes, total_bytes - 1, total_bytes)
    if content_range is None or tuple(map(int, content_range.groups())) != requested:
        return False
    if resume_point.validator.startswith('"'):
        return response.headers.get("ETag") == resume_point.validator
    # A response to If-Range does not have to repeat Last-Modified.
    return response.headers.get("Last-Modified", resume_point.validator) == resume_point.validator


def part_of(response: aiohttp.ClientResponse) -> str:
    """Returns the range that a response with status 200 says it has, if that is not the whole file; else `""`.

    With this status, the field has no meaning (RFC 9110, 14.4). But a server or a cache that sends a valid one has
    left out the other bytes.
    """
    found = _ANY_CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if response.status != 200 or found is None:
        return ""
    first, last, total = int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3])
    is_valid = first <= last and (total is None or last < total)
    is_whole = first == 0 and total in {None, last + 1}
    return f"bytes {first}-{last} of {found[3]}" if is_valid and not is_whole else ""


def _has_plain_body(response: aiohttp.ClientResponse, file_name: str) -> bool:
    try:
        return not codings_of(response, file_name)
    except UnknownCodingError:
        return False
