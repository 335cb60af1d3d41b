"""Turns the pages of an SQL result into one table: CSV with one header, or JSON objects, one a line. Pure: no I/O.

A `PageReader` removes the envelope at the beginning of a page and returns complete lines. A `Table` turns the lines
into rows and counts them. A row is not always a line: a quoted value in CSV can contain line ends.
"""

import csv
import io
import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from export_worker.errors import DownloadInvalidError
from export_worker.platforms.http.pages import is_error_text, json_value, markup_name, text_of

LINE_MAX_BYTES = 16 * 1024 * 1024
"""No real row is longer. The limit ends the download from a server that never ends its line."""
HEAD_BYTES = 1024
"""Bytes that are needed to distinguish rows, an envelope, a page of markup and a message of a proxy."""
HEAD_MAX_BYTES = 256 * 1024
"""Longest message over several lines. A longer page that begins with `{` contains rows."""

CheckMessage = Callable[[Any], bool]
"""Checks a JSON object where a row was expected.

Returns True for an envelope that means success and False for any other object. Raises the error of other envelopes.
"""


class PageReader:
    """Returns the lines of one page, without the envelope that some versions of the platform put first.

    Args:
        check: Called with every JSON object in place of a row.
    """

    def __init__(self, check: CheckMessage) -> None:
        self._check = check
        self._rest = bytearray()
        self.head_known = False
        """The beginning has been checked, and is no error."""

    def feed(self, chunk: bytes) -> bytes:
        """Adds a chunk and returns the lines that are complete now.

        Raises:
            DownloadInvalidError: The page is no page of rows, or has a line without end.
            StepError: The page contains an error in place of rows; see `check`.
        """
        self._rest += chunk
        self._check_head(complete=False)
        if not self.head_known:
            return b""
        end = self._rest.rfind(b"\n") + 1
        if end == 0 and len(self._rest) > LINE_MAX_BYTES:
            raise DownloadInvalidError(f"a line of the result has more than {LINE_MAX_BYTES} bytes")
        return self._taken(end)

    def finish(self) -> bytes:
        """Returns the last line, with a line end if it has none. Raises the errors of `feed`."""
        self._check_head(complete=True)
        if self._rest and not self._rest.endswith(b"\n"):
            self._rest += b"\n"
        return self._taken(len(self._rest))

    def _taken(self, end: int) -> bytes:
        lines = bytes(self._rest[:end])
        del self._rest[:end]
        self._check_messages(lines)
        return lines

    def _check_head(self, *, complete: bool) -> None:
        if self.head_known or (len(self._rest) < HEAD_BYTES and not complete):
            return
        while self._rest.startswith(BOM_UTF8):
            del self._rest[: len(BOM_UTF8)]
        beginning = bytes(self._rest[:HEAD_BYTES]).strip()
        _refuse_page(beginning, is_whole=len(self._rest) <= HEAD_BYTES)
        if not beginning.startswith(b"{") or self._drop_envelope(complete=complete):
            self.head_known = True

    def _drop_envelope(self, *, complete: bool) -> bool:
        """Removes an envelope from the beginning; returns False when more bytes are needed to decide."""
        end = self._rest.find(b"\n") + 1 or (len(self._rest) if complete else 0)
        if end and self._is_message(bytes(self._rest[:end])):
            del self._rest[:end]
            return True
        if not complete and len(self._rest) < HEAD_MAX_BYTES:
            return False
        if self._is_message(bytes(self._rest)):
            self._rest.clear()
        return True

    def _check_messages(self, lines: bytes) -> None:
        """Checks JSON objects among the rows: an error can also follow after rows."""
        if _OBJECT.search(lines):
            for line in lines.split(b"\n"):
                if _OBJECT.match(line):
                    self._is_message(line)

    def _is_message(self, text: bytes) -> bool:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return self._check(value)


_OBJECT = re.compile(rb"^[ \t]*\{", re.MULTILINE)
_MARKUP_PAGE = re.compile(r"<(?:\?xml|!--|!doctype|html\b|error\b)", re.IGNORECASE)
"""The beginning of a page that may have a comma in its first line."""
_REQUEST = re.compile(r"请稍后|请重试|请联系|请重新|\btry again\b|\bplease [a-z]", re.IGNORECASE)
"""What a message asks of its reader."""
_ID = re.compile(r"(?=[^,]*[0-9])[A-Za-z0-9_.@:+#-]+")


def _is_request(line: str) -> bool:
    """Whether a first line with commas is a sentence of a server. A row has quotes, or a value like an id."""
    return '"' not in line and _REQUEST.search(line) is not None and not any(map(_ID.fullmatch, line.split(",")))


def _refuse_page(beginning: bytes, *, is_whole: bool) -> None:
    """Refuses a page of a server or proxy in place of rows.

    A line with a comma is left to the table, which counts its values: the value of a user may look like markup.

    Raises:
        DownloadInvalidError: It is no page of rows.
    """
    text = text_of(beginning)
    if _MARKUP_PAGE.match(text):
        raise DownloadInvalidError(f"a page of the result is {markup_name(text)}")
    first_line = text.partition("\n")[0]
    if "," in first_line:
        if _is_request(first_line):
            raise DownloadInvalidError("a page of the result is a message, and not rows")
        return
    if (name := markup_name(first_line)) is not None and is_error_text(first_line):
        raise DownloadInvalidError(f"a page of the result is {name}")
    if is_whole and is_error_text(text):
        raise DownloadInvalidError("a page of the result is a message, and not rows")


class Table(Protocol):
    """Turns the lines of pages into the rows of one file."""

    content_type: str
    rows: int
    """Number of rows in all pages that have ended."""

    @property
    def header(self) -> bytes:
        """The bytes before the first row."""

    def add(self, lines: bytes) -> bytes:
        """Adds complete lines of a page and returns them in the format of the file.

        Raises:
            DownloadInvalidError: A line is no row.
        """

    def end_page(self) -> None:
        """Ends the page and adds its rows to `rows`."""


_OPENING = re.compile(rb'(?:^|,)"')
_CLOSING = re.compile(rb'(?:[^"]++|"")*+"')
_LENIENT = re.compile(rb'"(?:[^"]++|""|"(?!,|$))*+"(?=,|$)|[^,]*+')
_ESCAPED = re.compile(rb'"(?:[^"\\]++|\\.)*+"(?=,|$)|[^,]*+')
"""One value of a line that does not follow RFC 4180: with quotes within the value, or with backslashes before them."""
_JSON_LINE = re.compile(rb"^[ \t]*[{\[]", re.MULTILINE)


class CsvTable:
    """CSV with one header and one LF after each row. Line ends within quoted values stay unchanged.

    Rows are counted according to RFC 4180. If the quotes on a page are not balanced, the page does not follow RFC 4180,
    and each of its lines counts as a row. A row with another number of values than the header is refused, and on such a
    page a line that has another number in each way to read it. A JSON object or array in place of a row of several
    values is refused, too: it may have the right number of commas.
    """

    content_type = "text/csv"

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._plain_rows = re.compile(rb"(?:(?:[^,\n]*+,){%d}[^,\n]*+\n)*+" % (len(columns) - 1))
        self.rows = 0
        self._page_rows = 0
        self._page_lines = 0
        self._misfit: str | None = None
        """What is wrong with the first line that is no row. Within a quoted value with line ends nothing is."""
        self._within = False
        """A quoted value continues on the next line."""
        self._separators = 0
        """Commas between the values of the row so far."""
        self._regular = True

    @property
    def header(self) -> bytes:
        """The names of the columns, quoted where CSV requires it."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(self._columns)
        return text.getvalue().encode()

    def add(self, lines: bytes) -> bytes:
        """See `Table`."""
        if not lines:
            return b""  # the split below would make an empty line of it, which counts within a quoted value
        if not self._within and b'"' not in lines:
            return self._add_plain(lines)
        return b"".join(map(self._add_line, lines.removesuffix(b"\n").split(b"\n")))

    def end_page(self) -> None:
        """See `Table`."""
        regular = self._regular and not self._within
        if not regular and self._misfit is not None:
            raise DownloadInvalidError(f"{self._misfit}, on a page with quotes that are not balanced")
        self.rows += self._page_rows if regular else self._page_lines
        self._page_rows = self._page_lines = 0
        self._within, self._regular, self._separators = False, True, 0
        self._misfit = None

    def _add_plain(self, lines: bytes) -> bytes:
        """Adds lines without quotes: each non-empty line is a row."""
        rows = lines.replace(b"\r\n", b"\n")
        if rows.startswith(b"\n") or b"\n\n" in rows:
            rows = b"".join(row + b"\n" for row in rows.split(b"\n") if row)
        count = rows.count(b"\n")
        if self._plain_rows.fullmatch(rows) is None:
            self._refuse_other_line(rows)
        if _JSON_LINE.search(rows):
            self._refuse_json(rows)
        self._page_rows += count
        self._page_lines += count
        return rows

    def _refuse_other_line(self, rows: bytes) -> NoReturn:
        """Raises an error for a line that is no row, such as a server's error message, so that it is not stored."""
        separators = len(self._columns) - 1
        lines = [row for row in rows.split(b"\n") if row]
        index = next(index for index, row in enumerate(lines) if row.count(b",") != separators)
        found = lines[index].count(b",") + 1
        self._refuse(self._page_rows + index + 1, found)

    def _refuse_json(self, rows: bytes) -> None:
        for index, row in enumerate(rows.split(b"\n")):
            if self._is_json(row):
                raise DownloadInvalidError(self._json_problem(self._page_rows + index + 1))

    def _refuse(self, page_row: int, found: int) -> NoReturn:
        raise DownloadInvalidError(self._problem(page_row, found))

    def _problem(self, page_row: int, found: int) -> str:
        """Names a row by its number. Its values are not quoted, since they belong to a user."""
        number = self.rows + page_row
        return f"row {number} of the result has {found} values for {len(self._columns)} columns"

    def _json_problem(self, page_row: int) -> str:
        return f"row {self.rows + page_row} of the result is a JSON object or array"

    def _is_json(self, line: bytes) -> bool:
        """Whether a line is JSON where several values were expected."""
        is_json = len(self._columns) > 1 and _JSON_LINE.match(line) is not None
        return is_json and json_value(line.decode(errors="replace").strip()) is not None

    def _check_line(self, line: bytes) -> None:
        """Looks for what is wrong with a line if it is a row."""
        if self._is_json(line):
            self._misfit = self._json_problem(self._page_lines)
            if not self._within:
                raise DownloadInvalidError(self._misfit)
        elif self._misfit is None and not _fits(line, len(self._columns)):
            self._misfit = self._problem(self._page_lines, line.count(b",") + 1)

    def _add_line(self, line: bytes) -> bytes:
        plain = line.removesuffix(b"\r")
        if plain:
            self._page_lines += 1
            if self._misfit is None or not self._within:
                self._check_line(plain)
        if not plain and not self._within:
            return b""
        self._within = self._ends_within(line)
        if self._within:
            return line + b"\n"
        self._page_rows += 1
        if self._regular and self._separators != len(self._columns) - 1:
            self._refuse(self._page_rows, self._separators + 1)
        self._separators = 0
        return plain + b"\n"

    def _ends_within(self, line: bytes) -> bool:
        """Returns whether a quoted value continues after the line.

        A quote within an unquoted value is an ordinary character.
        """
        position, within = 0, self._within
        while True:
            if within:
                closing = _CLOSING.match(line, position)
                if closing is None:
                    return True
                position = closing.end()
                self._regular &= line[position : position + 1] in {b"", b",", b"\r"}
            opening = _OPENING.search(line, position)
            self._separators += line.count(b",", position, None if opening is None else opening.end())
            if opening is None:
                return False
            position, within = opening.end(), True


def _fits(line: bytes, columns: int) -> bool:
    """Whether a line can be read as a row of so many values, whatever the meaning of its quotes."""
    if line.count(b",") == columns - 1:
        return True
    return b'"' in line and any(_reads_as(line, columns, value) for value in (_LENIENT, _ESCAPED))


def _reads_as(line: bytes, columns: int, value: re.Pattern[bytes]) -> bool:
    start = 0
    for others in range(columns - 1, -1, -1):
        end = value.match(line, start).end()  # type: ignore[union-attr]
        if value is _LENIENT and line.startswith(b'"', start) and not line.endswith(b'"', start + 1, end):
            # The quote has no end. Looking for one after each later quote would take hours on a long line.
            return line.count(b",", start) == others
        if end == len(line):
            return others == 0
        start = end + 1
    return False


class JsonTable:
    """One JSON object a line, made from one array a line. The text of each value stays unchanged."""

    content_type = "application/x-ndjson"
    header = b""

    def __init__(self, columns: Sequence[str]) -> None:
        """Refuses two columns of one name: an object with both would lose a value wherever it is read."""
        twice = next((name for index, name in enumerate(columns) if name in columns[:index]), None)
        if twice is not None:
            raise DownloadInvalidError(f"the result has two columns with the name {twice!r}")
        self._names = [json.dumps(name, ensure_ascii=False) for name in columns]
        self.rows = 0

    def add(self, lines: bytes) -> bytes:
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


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_SPACES = re.compile(r"[ \t\r\n]*")


def _elements(text: str) -> list[str]:
    """Returns the texts of the elements of a JSON array. Numbers keep their digits.

    Raises:
        ValueError: The text is no JSON array.
    """
    if not text.startswith("["):
        raise ValueError("no array")
    _DECODER.decode(text)
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
