"""Recognizes error pages: what a server or a gateway sends with status 200 in place of a file.

A file never begins like markup, and a body that is one JSON value is no table. A single line of plain words is what
proxies write. Rows of users are not quoted in the messages: only pages and messages are.
"""

import json
import re

from export_worker.contract.file_names import JSON_EXTENSIONS, MARKUP_EXTENSIONS, extension_of
from export_worker.contract.printable import readable
from export_worker.credentials import Redactor
from export_worker.errors import DownloadInvalidError

SNIFF_BYTES = 64 * 1024
"""No error page of a gateway is larger, and holding it costs little memory."""
_PEEK_BYTES = 4096
"""Enough for the excerpt in any charset."""
_LONGEST_BEGINNING = 64
_WORDS_MAX_CHARACTERS = 400
"""Proxies write one sentence. A longer line is data."""

_MARKUP = re.compile(r"<[!?/]?[A-Za-z]|<!--")
_JSON_ARRAY = re.compile(r'\[\s*\{\s*"')
_WORD = r"[A-Za-z][A-Za-z'/-]*"
_WORDS = re.compile(rf"(?:{_WORD}|\d{{3,4}})(?:[:.]? +(?:{_WORD}|\d{{3,4}}|\(\d{{3}}\)))+[.!:]?")
"""Two or more words with at most a status among them, such as `upstream connect error or disconnect/reset before
headers. reset reason: connection failure`. With a comma, a tab or a quote it may be the header of a table."""
_SINGLE_WORDS = frozenset(("error", "false", "forbidden", "null", "timeout", "unauthorized", "undefined"))


class ErrorPages:
    """Checks one file.

    Args:
        file_name: Its extension shows whether JSON or markup is expected.
        redactor: Masks secrets in what is quoted.
    """

    def __init__(self, file_name: str, redactor: Redactor) -> None:
        extension = extension_of(file_name)
        self._is_json = extension in JSON_EXTENSIONS
        self._is_markup = extension in MARKUP_EXTENSIONS
        self._is_table = extension == ".csv"
        self._redactor = redactor

    def check_beginning(self, head: bytes) -> None:
        """Checks the first bytes of a file of any length.

        Raises:
            DownloadInvalidError: They are the beginning of a page, or of a JSON array where a table is expected.
        """
        text = _beginning(head)
        if not self._is_markup and _MARKUP.match(text):
            excerpt = self._redactor.excerpt(readable(head).lstrip(), is_cut=True)
            raise DownloadInvalidError(f"the download is {_markup_name(text)}, not a file: {excerpt}")
        if self._is_table and _JSON_ARRAY.match(text):
            raise DownloadInvalidError("the download is a JSON array where a table was announced")

    def check_whole(self, body: bytes) -> None:
        """Checks a whole file of at most `SNIFF_BYTES`.

        Raises:
            DownloadInvalidError: It is a page or a message.
        """
        text = readable(body).strip()
        if text.startswith("{") and not (self._is_json or self._is_markup) and _is_json_value(text):
            raise DownloadInvalidError(f"the download is a JSON message, not a file: {self._redactor.excerpt(text)}")
        if text.startswith("[") and self._is_table and _is_json_value(text):
            # Not quoted: it may have rows of users.
            raise DownloadInvalidError("the download is a JSON array where a table was announced")
        self.check_beginning(body)
        if self._is_table and _is_message(text):
            raise DownloadInvalidError(f"the download is a message, not a table: {self._redactor.excerpt(text)}")


def _markup_name(text: str) -> str:
    beginning = text[:_LONGEST_BEGINNING].lower()
    if beginning.startswith(("<!doctype html", "<html")):
        return "an HTML page"
    return "an XML document" if beginning.startswith("<?xml") else "a page of markup"


def _is_message(text: str) -> bool:
    if len(text) > _WORDS_MAX_CHARACTERS:
        return False
    return text.lower() in _SINGLE_WORDS or _WORDS.fullmatch(text) is not None


def _is_json_value(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _beginning(body: bytes) -> str:
    """Returns the start of the text, without leading blanks. Decoding all of it takes a quarter of a small transfer."""
    text = readable(body[:_PEEK_BYTES]).lstrip()
    return text if len(text) >= _LONGEST_BEGINNING or len(body) <= _PEEK_BYTES else readable(body).lstrip()
