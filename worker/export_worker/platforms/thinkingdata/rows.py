"""Turns the pages of a SQL result into one table: CSV with one header, or JSON objects, one a line. No I/O.

A page is read by a `PageReader`, which takes an envelope off its beginning and gives out whole lines; a table makes
rows of them and counts, because a row is not always a line: a quoted value in CSV may hold line ends.
"""

import csv
import io
import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from export_worker.errors import DownloadInvalidError

LINE_MAX_BYTES = 16 * 1024 * 1024
"""No row is longer: an end to a server that never ends its line."""
HEAD_BYTES = 64
"""Enough of a page's beginning to tell rows, an envelope and an HTML page from each other."""
HEAD_MAX_BYTES = 256 * 1024
"""A message over several lines ends within; a page that begins with `{` and is longer holds rows."""

CheckMessage = Callable[[Any], bool]
"""Looks at a JSON object where a row was expected: True for a good envelope, False for none, raises what it says."""


class PageReader:
    """The lines of one page, without the envelope that some versions put first.

    Args:
        check: Looks at every JSON object that stands in place of a row.
    """

    def __init__(self, check: CheckMessage) -> None:
        self._check = check
        self._rest = bytearray()
        self.head_known = False
        """The beginning has been looked at, and is no error."""

    def feed(self, chunk: bytes) -> bytes:
        """Whole lines, as far as they have come.

        Raises:
            DownloadInvalidError: A page of HTML, or a line without end.
            StepError: An error in place of rows; see `check`.
        """
        self._rest += chunk
        self._look_at_head(complete=False)
        if not self.head_known:
            return b""
        end = self._rest.rfind(b"\n") + 1
        if end == 0 and len(self._rest) > LINE_MAX_BYTES:
            raise DownloadInvalidError(f"a line of the result has more than {LINE_MAX_BYTES} bytes")
        return self._taken(end)

    def finish(self) -> bytes:
        """The last line, with the line end that it may lack. Raises as `feed` does."""
        self._look_at_head(complete=True)
        if self._rest and not self._rest.endswith(b"\n"):
            self._rest += b"\n"
        return self._taken(len(self._rest))

    def _taken(self, end: int) -> bytes:
        lines = bytes(self._rest[:end])
        del self._rest[:end]
        self._look_for_messages(lines)
        return lines

    def _look_at_head(self, *, complete: bool) -> None:
        if self.head_known or (len(self._rest) < HEAD_BYTES and not complete):
            return
        if self._rest.startswith(BOM_UTF8):
            del self._rest[: len(BOM_UTF8)]
        beginning = bytes(self._rest[:HEAD_BYTES]).lstrip().lower()
        if beginning.startswith((b"<!doctype html", b"<html")):
            raise DownloadInvalidError("a page of the result is an HTML page")
        if not beginning.startswith(b"{") or self._drop_envelope(complete=complete):
            self.head_known = True

    def _drop_envelope(self, *, complete: bool) -> bool:
        """Take an envelope off; False when more has to come before that can be told."""
        end = self._rest.find(b"\n") + 1 or (len(self._rest) if complete else 0)
        if end and self._is_message(bytes(self._rest[:end])):
            del self._rest[:end]
            return True
        if not complete and len(self._rest) < HEAD_MAX_BYTES:
            return False
        if self._is_message(bytes(self._rest)):
            self._rest.clear()
        return True

    def _look_for_messages(self, lines: bytes) -> None:
        """An error may also come after rows."""
        if lines.startswith(b"{") or b"\n{" in lines:
            for line in lines.split(b"\n"):
                if line.startswith(b"{"):
                    self._is_message(line)

    def _is_message(self, text: bytes) -> bool:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return self._check(value)


class Table(Protocol):
    """What becomes of the lines."""

    content_type: str
    rows: int
    """So far, of all pages that have ended."""

    @property
    def header(self) -> bytes:
        """What stands before the first row."""

    def take(self, lines: bytes) -> bytes:
        """Whole lines of a page, as they are to be stored.

        Raises:
            DownloadInvalidError: What should be a row is none.
        """

    def end_page(self) -> None:
        """The page has ended: its rows count."""


EXCERPT_BYTES = 120
"""Of a line that is no row, for the message."""

_OPENING = re.compile(rb'(?:^|,)"')
_CLOSING = re.compile(rb'(?:[^"]++|"")*+"')


class CsvTable:
    """CSV as it comes, with one header and one LF after each row. Line ends within quoted values stay.

    Rows are counted as RFC 4180 has them. A page on which quotes do not add up was not written by those rules; there a
    line counts as a row.
    """

    content_type = "text/csv"

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self.rows = 0
        self._page_rows = 0
        self._page_lines = 0
        self._within = False
        """A quoted value goes on in the next line."""
        self._regular = True

    @property
    def header(self) -> bytes:
        """The names, quoted where CSV wants it."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(self._columns)
        return text.getvalue().encode()

    def take(self, lines: bytes) -> bytes:
        """See `Table`."""
        if not lines:
            return b""  # within a quoted value an empty line would be one
        if not self._within and b'"' not in lines:
            return self._take_plain(lines)
        return b"".join(map(self._take_line, lines.removesuffix(b"\n").split(b"\n")))

    def end_page(self) -> None:
        """See `Table`."""
        regular = self._regular and not self._within
        self.rows += self._page_rows if regular else self._page_lines
        self._page_rows = self._page_lines = 0
        self._within, self._regular = False, True

    def _take_plain(self, lines: bytes) -> bytes:
        """Without quotes, a line is a row; an empty one is none."""
        rows = lines.replace(b"\r\n", b"\n")
        if rows.startswith(b"\n") or b"\n\n" in rows:
            rows = b"".join(row + b"\n" for row in rows.split(b"\n") if row)
        count = rows.count(b"\n")
        if rows.count(b",") != count * (len(self._columns) - 1):
            self._refuse_stray_line(rows)
        self._page_rows += count
        self._page_lines += count
        return rows

    def _refuse_stray_line(self, rows: bytes) -> NoReturn:
        """A text among the rows, such as a server's error, must not be stored as if it were a user."""
        separators = len(self._columns) - 1
        stray = next((row for row in rows.split(b"\n") if row and row.count(b",") != separators), rows)
        excerpt = stray[:EXCERPT_BYTES].decode(errors="replace")
        raise DownloadInvalidError(f"a line of the result has not the {len(self._columns)} columns: {excerpt}")

    def _take_line(self, line: bytes) -> bytes:
        plain = line.removesuffix(b"\r")
        self._page_lines += bool(plain)
        if not plain and not self._within:
            return b""
        self._within = self._ends_within(line)
        if self._within:
            return line + b"\n"
        self._page_rows += 1
        return plain + b"\n"

    def _ends_within(self, line: bytes) -> bool:
        """Whether a quoted value goes on after the line. A quote that does not begin a value is an ordinary mark."""
        position, within = 0, self._within
        while True:
            if within:
                closing = _CLOSING.match(line, position)
                if closing is None:
                    return True
                position = closing.end()
                self._regular &= line[position : position + 1] in {b"", b",", b"\r"}
            opening = _OPENING.search(line, position)
            if opening is None:
                return False
            position, within = opening.end(), True


class JsonTable:
    """One JSON object a line, made from one array a line; each value stays as it was written."""

    content_type = "application/x-ndjson"
    header = b""

    def __init__(self, columns: Sequence[str]) -> None:
        self._names = [json.dumps(name, ensure_ascii=False) for name in columns]
        self.rows = 0

    def take(self, lines: bytes) -> bytes:
        """See `Table`."""
        rows = [self._row(line) for line in lines.split(b"\n") if line.strip()]
        self.rows += len(rows)
        return b"".join(rows)

    def end_page(self) -> None:
        """See `Table`."""

    def _row(self, line: bytes) -> bytes:
        try:
            values = _elements(line.decode().strip())
        except (ValueError, RecursionError):
            raise DownloadInvalidError("a line of the result is no JSON array") from None
        if len(values) != len(self._names):
            raise DownloadInvalidError(f"a row of the result has {len(values)} values for {len(self._names)} columns")
        fields = (f"{name}:{value}" for name, value in zip(self._names, values, strict=True))
        return f"{{{','.join(fields)}}}\n".encode()


_DECODER = json.JSONDecoder()
_SPACES = re.compile(r"[ \t\r\n]*")


def _elements(text: str) -> list[str]:
    """The elements of a JSON array, each as it is written: numbers keep their digits.

    Raises:
        ValueError: It is no array.
    """
    if not text.startswith("["):
        raise ValueError("no array")
    json.loads(text)
    elements: list[str] = []
    position = _after_spaces(text, 1)
    while text[position] != "]":
        _, end = _DECODER.raw_decode(text, position)
        elements.append(text[position:end])
        position = _after_spaces(text, end)
        if text[position] == ",":
            position = _after_spaces(text, position + 1)
    return elements


def _after_spaces(text: str, position: int) -> int:
    found = _SPACES.match(text, position)
    return found.end() if found is not None else position
