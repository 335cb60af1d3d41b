"""The record of an ended export: one packed string in Redis, which replaces the hash and the timeline of an open one.

The value is a header of lines, which Lua scripts read as well (see `redis/lua/past.lua`), and a packed body. The body
has the state, the trace context and the timeline, compressed with a dictionary that was made for these documents. The
status and the completion event are not in it: `contract.past_documents` builds them from the state. Pure.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

LAYOUT = b"2"
"""The first line of a header. Version 1 is the hash `export:ID`, which an ended export keeps in earlier versions."""

HEADER_LINES = 12
"""The lines of a header: the layout, and those of `PastHeader`."""

BODY_MAX_BYTES = 64 << 20
"""A body that unpacks to more is refused. A state of 10,000 files has some 10 MB."""

TIMELINE_MAX = 200
"""Transitions kept of one export: 20 KiB at most, and many more than a healthy export has."""

_PLAIN, _DICTIONARY = b"0", b"1"
"""The first byte of a body: it is not compressed, or it is compressed with the dictionary of this number."""
_PRESET = (files("export_worker.contract") / "past_dictionary_1.txt").read_bytes()
"""The dictionary. It is read with the module, since an event loop must not wait for a disk."""
_WINDOW_BITS = -13
"""Raw deflate without a checksum, with a window of 8 KiB: the dictionary fits into it."""
_MEMORY_LEVEL = 6
"""Keeps the compressor small, because it is copied for each body. A larger one saves no bytes."""
_LARGE_BYTES = 64 << 10
"""A larger body is compressed at the fastest level, so that it does not hold the event loop."""
_PARTS = 3
"""The lines of a body before the timeline: state, trace and status."""
_SELF = b"\x01"
"""Stands for the id of the export in a body. JSON has no such byte."""
_NO_TEXT = re.compile(rb"[\x01\n]")


class UnreadablePastError(ValueError):
    """A packed record is damaged, or was written by a newer version."""


@dataclass(frozen=True, slots=True)
class PastHeader:
    """The part of a packed record that is read without unpacking it.

    Args:
        generation: Of the export when it ended. Its event has the id `EXPORT.GENERATION`.
        step: The number of the step that would run next.
        number: Of the export, in the order of acceptance; 0 if it has none.
        saved: The version of the record whose step ended the export.
        until_ms: When the record expires.
        requested_by: Who requested the export; empty if an earlier version accepted it.
        error: The error code of a failed export, otherwise empty.
        identity: The key, without the prefix of the namespace, of the identity that expires with the record; or empty.
        text: The header as it is stored. Two ends of exports never have the same header.
    """

    phase: str
    generation: int
    step: int
    number: int
    saved: str
    until_ms: int
    connection: str
    kind: str
    requested_by: str
    error: str
    identity: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Past:
    """The record of an ended export.

    Args:
        state: The export as the worker saved it, as JSON, with its request.
        trace: The trace context of the request, as JSON; empty if it has none.
        timeline: The transitions as JSON, the oldest first, without the acceptance.
        status: The stored status, as JSON, if it differs from what the state gives; otherwise empty.
    """

    header: PastHeader
    state: bytes
    trace: bytes = b""
    timeline: Sequence[bytes] = field(default_factory=tuple)
    status: bytes = b""


def pack_body(
    export_id: str, state: bytes, timeline: Sequence[bytes], *, trace: bytes = b"", status: bytes = b""
) -> bytes:
    """Returns the packed body of a record. `Past` describes the arguments."""
    lines = [_NO_TEXT.sub(b" ", part) for part in (state, trace, status, *timeline)]
    body = b"\n".join(lines).replace(export_id.encode(), _SELF)
    if len(body) > BODY_MAX_BYTES:
        return _PLAIN + body
    compressor = _compressor(1 if len(body) > _LARGE_BYTES else 6).copy()
    return b"".join((_DICTIONARY, compressor.compress(body), compressor.flush()))


def unpack(export_id: str, value: bytes) -> Past:
    """Returns a packed record.

    Raises:
        UnreadablePastError: The value is damaged, or was written by a newer version.
    """
    header, packed = _split(value)
    body = _inflated(packed).replace(_SELF, export_id.encode())
    parts = body.split(b"\n")
    if len(parts) < _PARTS:
        raise UnreadablePastError("the packed record is incomplete")
    state, trace, status, *timeline = parts
    return Past(header, state, trace, tuple(timeline), status)


def is_packed(value: bytes) -> bool:
    """Returns whether a value is a packed record. JSON, as earlier versions store it, is none."""
    return value.startswith(LAYOUT + b"\n")


def read_header(value: bytes) -> PastHeader:
    """Returns the header of a packed record, or of its beginning.

    Raises:
        UnreadablePastError: The value is damaged, or was written by a newer version.
    """
    return _split(value)[0]


def _split(value: bytes) -> tuple[PastHeader, bytes]:
    lines = value.split(b"\n", HEADER_LINES)
    if len(lines) <= HEADER_LINES or lines[0] != LAYOUT:
        raise UnreadablePastError("the packed record has no header of layout 2")
    *texts, body = lines
    phase, generation, step, number, saved, until_ms, *names = (text.decode(errors="replace") for text in texts[1:])
    connection, kind, requested_by, error, identity = names
    try:
        numbers = int(generation), int(step), int(number)
        until = int(until_ms)
    except ValueError:
        raise UnreadablePastError("the header of the packed record has no numbers") from None
    text = value[: len(value) - len(body)]
    header = PastHeader(phase, *numbers, saved, until, connection, kind, requested_by, error, identity, text)
    return header, body


def _inflated(packed: bytes) -> bytes:
    """Returns the content of a body, of `BODY_MAX_BYTES` at most, whatever size the packed bytes state."""
    if packed[:1] == _PLAIN:
        return packed[1:]
    if packed[:1] != _DICTIONARY:
        raise UnreadablePastError("the packed record was written by a newer version")
    reader = zlib.decompressobj(_WINDOW_BITS, _PRESET)
    try:
        body = reader.decompress(packed[1:], BODY_MAX_BYTES)
    except zlib.error:
        raise UnreadablePastError("the packed record is damaged") from None
    if not reader.eof:
        raise UnreadablePastError("the packed record is cut off, or too large")
    return body


@cache
def _compressor(level: int) -> "zlib._Compress":
    """Returns a compressor that has read the dictionary. A copy of it is several times faster than a new one."""
    return zlib.compressobj(level, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, _PRESET)
