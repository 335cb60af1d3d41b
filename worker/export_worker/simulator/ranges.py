"""Version headers of downloads, and the start of the range that a request asks for."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256

from aiohttp import web

from export_worker.simulator.files import FileSpec
from export_worker.simulator.scenario import Validator

_OLDEST = datetime(2020, 1, 1, tzinfo=UTC)
_OPEN_RANGE = re.compile(r"bytes=(\d+)-")
"""The only supported form of a range. For other forms, the response is the whole file, as HTTP allows."""


def changed(spec: FileSpec) -> FileSpec:
    """Returns the spec of the file after it was rewritten: the same length, other bytes."""
    return replace(spec, seed=f"{spec.seed}, changed")


def version_headers(spec: FileSpec, validator: Validator) -> dict[str, str]:
    """Returns the headers that identify the version of a file."""
    version = sha256(repr(spec).encode()).hexdigest()[:16]
    match validator:
        case "etag":
            return {"ETag": f'"{version}"'}
        case "weak_etag":
            return {"ETag": f'W/"{version}"'}
        case "last_modified":
            written_at = _OLDEST + timedelta(seconds=int(version[:6], 16))
            return {"Last-Modified": format_datetime(written_at, usegmt=True)}
        case "none":
            return {}


def requested_start(request: web.Request, version: dict[str, str]) -> int | None:
    """Returns the offset of the first requested byte.

    Returns:
        None if the request asks for the whole file, or for a range of another version of it.
    """
    requested = _OPEN_RANGE.fullmatch(request.headers.get("Range", ""))
    condition = request.headers.get("If-Range")
    strong = {value for value in version.values() if not value.startswith("W/")}
    if requested is None or (condition is not None and condition not in strong):
        return None
    return int(requested[1])
