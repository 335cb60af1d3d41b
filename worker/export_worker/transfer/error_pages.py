"""Refuses error pages: what a server or a gateway sends with status 200 in place of a file.

A file never begins like markup, and a table never like JSON. A few plain words are what proxies write. Rows of users
are not quoted in the messages: only pages and messages are.
"""

from export_worker.contract.file_names import (
    BINARY_EXTENSIONS,
    JSON_EXTENSIONS,
    MARKUP_EXTENSIONS,
    TABLE_EXTENSIONS,
    extension_of,
)
from export_worker.credentials import Redactor
from export_worker.errors import DownloadInvalidError
from export_worker.platforms.http.pages import (
    beginning_of,
    begins_like_json,
    has_chunk_framing,
    is_json_error,
    is_message,
    json_value,
    markup_name,
    text_of,
)
from export_worker.platforms.http.responses import excerpt_of_page

SNIFF_BYTES = 64 * 1024
"""No error page of a gateway is larger, and holding it costs little memory."""


class ErrorPages:
    """Checks one file.

    Args:
        file_name: Its extension shows whether a table, JSON or markup is expected.
        redactor: Masks secrets in what is quoted.
        is_quoted: Whether messages quote what they refuse.
    """

    def __init__(self, file_name: str, redactor: Redactor, *, is_quoted: bool = True) -> None:
        extension = extension_of(file_name)
        self._is_json = extension in JSON_EXTENSIONS
        self._is_markup = extension in MARKUP_EXTENSIONS
        self._is_table = extension in TABLE_EXTENSIONS | BINARY_EXTENSIONS
        self._redactor = redactor
        self._is_quoted = is_quoted

    def check_beginning(self, head: bytes) -> None:
        """Checks the first bytes of a file of any length.

        Raises:
            DownloadInvalidError: They are the beginning of a page, or of JSON where other content is expected.
        """
        if has_chunk_framing(head):
            raise DownloadInvalidError(
                "the download still has the framing of its chunks (as of aws-chunked) in its data"
            )
        text = beginning_of(head)
        if self._is_markup:
            return
        if (name := markup_name(text)) is not None:
            raise DownloadInvalidError(f"the download is {name}, not a file{self._excerpt(head)}")
        if self._is_table and begins_like_json(text):
            # Not quoted: it may have rows of users.
            raise DownloadInvalidError("the download begins like JSON where a table was announced")
        if self._is_table and not text and len(head) >= SNIFF_BYTES and not head.strip():
            raise DownloadInvalidError(f"the download begins with {SNIFF_BYTES // 1024} KiB of blanks")

    def check_whole(self, body: bytes) -> None:
        """Checks a whole file of at most `SNIFF_BYTES`.

        Raises:
            DownloadInvalidError: It is a page or a message.
        """
        text = text_of(body).rstrip(" \t\r\n\0")
        if not self._is_markup:
            self._check_json(text, body)
        self.check_beginning(body)
        if (self._is_table or self._is_json) and is_message(text):
            raise DownloadInvalidError(f"the download is a message, not a table{self._excerpt(body)}")

    def _check_json(self, text: str, body: bytes) -> None:
        """Refuses a JSON value; under a JSON name, only an error. Another object may be, or have, rows of users."""
        value = json_value(text)
        if self._is_json and not (isinstance(value, dict) and is_json_error(value)):
            return
        if isinstance(value, list) and self._is_table:
            raise DownloadInvalidError("the download is a JSON array where a table was announced")
        if isinstance(value, dict):
            excerpt = self._excerpt(body) if is_json_error(value) else ""
            raise DownloadInvalidError(f"the download is a JSON message, not a file{excerpt}")

    def _excerpt(self, body: bytes) -> str:
        return f": {excerpt_of_page(body, self._redactor)}" if self._is_quoted else ""
