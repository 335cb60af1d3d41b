"""Which version of a file a download's head tells of, and from where on a request wants it."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256

from aiohttp import web

from export_worker.simulator.files import FileSpec
from export_worker.simulator.scenario import Validator

_OLDEST = datetime(2020, 1, 1, tzinfo=UTC)
_FROM = re.compile(r"bytes=(\d+)-")
"""Ranges of other forms are answered with the whole file, as HTTP allows."""


def changed(spec: FileSpec) -> FileSpec:
    """The file as it is after somebody wrote it anew: as long as before, and of other bytes."""
    return replace(spec, seed=f"{spec.seed}, changed")


def version_of(spec: FileSpec, validator: Validator) -> dict[str, str]:
    """The headers that tell one version of a file from another."""
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


def start_asked(request: web.Request, version: dict[str, str]) -> int | None:
    """The first byte that is asked for; None for the whole file, also when another version of it was meant."""
    asked = _FROM.fullmatch(request.headers.get("Range", ""))
    condition = request.headers.get("If-Range")
    strong = {value for value in version.values() if not value.startswith("W/")}
    if asked is None or (condition is not None and condition not in strong):
        return None
    return int(asked[1])
