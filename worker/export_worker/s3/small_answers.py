"""Reads an answer of HTTP from the pieces in which it arrives, up to a limit."""

import re
from dataclasses import dataclass
from http import HTTPStatus

HEAD_MAX_BYTES = 64 * 1024
"""S3 sends less than 10 KiB."""
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: |$)")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?\r?")
_CHUNK_LINE_MAX_BYTES = 1024
_LENGTH_MAX_DIGITS = 18
"""More than any length that a store can have, and fewer than Python refuses to read."""


class BrokenAnswerError(Exception):
    """The server has sent something other than an answer, or has closed the connection in the middle of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        headers: By names in lower case.
        body: None if it is longer than the limit.
        is_reusable: Another request may follow on the connection.
    """

    status: int
    headers: dict[str, str]
    body: bytes | None
    is_reusable: bool


class AnswerReader:
    """Reads one answer.

    Args:
        has_body: False for the answer to a HEAD request.
        success_max_bytes: Limit of the body of a successful answer.
        error_max_bytes: Limit of the body of every other answer.
    """

    def __init__(self, *, has_body: bool, success_max_bytes: int, error_max_bytes: int) -> None:
        self._has_body = has_body
        self._limits = success_max_bytes, error_max_bytes
        self._data = bytearray()
        self._body = bytearray()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._keeps_open = False
        self._left: int | None = None
        self._is_chunked = False
        self._is_too_long = False

    @property
    def answer(self) -> Answer:
        """The answer, after `feed` has returned True."""
        is_reusable = self._keeps_open and not self._data and not self._is_too_long
        return Answer(self._status, self._headers, None if self._is_too_long else bytes(self._body), is_reusable)

    def feed(self, piece: bytes) -> bool:
        """Adds a piece; an empty one is the end of the connection. Returns whether the answer is complete.

        Raises:
            BrokenAnswerError: The bytes are no answer, or it is incomplete.
        """
        self._data += piece
        if not self._status and not self._read_head():
            if not piece:
                raise BrokenAnswerError
            return False
        is_complete = self._read_chunks() if self._is_chunked else self._read_body()
        success_max_bytes, error_max_bytes = self._limits
        if len(self._body) > (success_max_bytes if self._status < HTTPStatus.MULTIPLE_CHOICES else error_max_bytes):
            self._is_too_long = is_complete = True
        if not piece and not is_complete:
            self._keeps_open = False
            if self._is_chunked or self._left is not None:
                raise BrokenAnswerError
            return True
        return is_complete

    def _read_head(self) -> bool:
        while end := _END_OF_HEAD.search(self._data):
            lines = bytes(self._data[: end.start()]).split(b"\n")
            del self._data[: end.end()]
            matched = _STATUS_LINE.match(lines[0])
            if matched is None:
                raise BrokenAnswerError
            status = int(matched[2])
            if status >= HTTPStatus.OK:  # the others announce that the answer follows
                self._begin_body(status, _headers(lines[1:]), is_1_1=matched[1] == b"1")
                return True
        if len(self._data) > HEAD_MAX_BYTES:
            raise BrokenAnswerError
        return False

    def _begin_body(self, status: int, headers: dict[str, str], *, is_1_1: bool) -> None:
        self._status, self._headers = status, headers
        self._keeps_open = is_1_1 and headers.get("connection", "").lower() != "close"
        length = headers.get("content-length")
        if not self._has_body or status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            self._left = 0
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            self._is_chunked, self._left = True, 0
        elif length is not None:
            if not (length.isascii() and length.isdigit() and len(length) <= _LENGTH_MAX_DIGITS):
                raise BrokenAnswerError
            self._left = int(length)

    def _read_body(self) -> bool:
        """Moves what belongs to the body. Without a length, the body ends with the connection."""
        count = len(self._data) if self._left is None else min(self._left, len(self._data))
        self._body += self._data[:count]
        del self._data[:count]
        if self._left is None:
            return False
        self._left -= count
        return self._left == 0

    def _read_chunks(self) -> bool:
        while True:
            if self._left:
                self._read_body()
                if self._left:
                    return False
            line_end = self._data.find(b"\n")
            if line_end < 0:
                if len(self._data) > _CHUNK_LINE_MAX_BYTES:
                    raise BrokenAnswerError
                return False
            line = bytes(self._data[:line_end])
            if line in {b"", b"\r"} and self._body:  # behind the bytes of a chunk
                del self._data[: line_end + 1]
                continue
            size = _CHUNK_SIZE.fullmatch(line)
            if size is None:
                raise BrokenAnswerError
            if int(size[1], 16) == 0:
                # Fields may follow. The connection is not used again, so they need not be read.
                self._keeps_open = False
                return True
            del self._data[: line_end + 1]
            self._left = int(size[1], 16)


def _headers(lines: list[bytes]) -> dict[str, str]:
    """Returns header fields. Several fields of one name are joined."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise BrokenAnswerError
        key, text = name.decode("latin-1").lower(), value.strip().decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
