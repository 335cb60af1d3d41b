"""Recognizes what servers send in place of a file with status 200: pages of markup, JSON, and messages in plain words.

The functions look at text only. A caller knows which file it expects, and so which of these forms are wrong.
"""

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, getincrementaldecoder
from collections.abc import Mapping
from typing import Any

PEEK_BYTES = 4096
"""Enough for the excerpt in any charset."""
_LONGEST_BEGINNING = 64
_MESSAGE_MAX_CHARACTERS = 600
_MESSAGE_MAX_LINES = 6
"""Proxies write a sentence or two. A longer text is data."""

_MARKUP = re.compile(r"<(?:\s*[!?/%]|[^\W\d])")
_PAGE = re.compile(
    r"<(?:[!?%]|/?(?:body|br|center|div|error|fault|h\d|head|html|meta|p|pre|response|script|style|title|\w+:envelope)\b)",
    re.IGNORECASE,
)
"""The beginning of a page where a value of a user may begin with another tag."""
_JSON = re.compile(r"""\{\s*(?:["'}]|[A-Za-z_]\w*\s*:)|\[\s*[\[{"']""")
"""The beginning of an object, or of an array of anything but numbers: `[0,18)` is the name of a range of ages."""
_SCRIPT = re.compile(
    r"""/[/*]|\)\]\}'|(?:while|for)\s*\([^)]*\)\s*;|[A-Za-z_$][\w$.]*\(\s*[\[{]|data:\s*[\[{]"""
    r"""|HTTP/\d|--\S{1,70}\r?\n[Cc]ontent-"""
)
"""JSON in its wrappings for browsers, events, a response within the response, and several bodies in one."""

_CHUNK_HEAD = re.compile(rb"([0-9A-Fa-f]{1,8})(;chunk-signature=[0-9a-f]{64})?\r\n")
_CHUNK_END = re.compile(rb"(?:[A-Za-z0-9-]+:[^\r\n]*\r?\n)*\r?\n?")
"""Trailers, such as checksums, and the end of the message."""
_LONG_CHUNK_BYTES = 1024
"""Rows of one or two digits may look like shorter chunks."""
_ERROR_FIELDS = frozenset(
    (
        "code", "detail", "error", "errors", "errcode", "errmsg", "errorcode", "errordescription", "errorinfo",
        "errormessage", "exception", "message", "msg", "reason", "returncode", "returnmessage", "success", "title",
    )
)  # fmt: skip
_SEPARATORS = re.compile(r"[,\t;|]")
_ERROR = re.compile(
    r"access|captcha|denied|error|exceed|exception|expired|fail|forbidden|not found|invalid|missing|moved|no such"
    r"|not allowed|refused|reset|sorry|timed? ?out|too many|try again|unable|unauthori[sz]ed|unavailable|unknown|wrong",
    re.IGNORECASE,
)
_ERROR_CODE = re.compile(
    r"(?:[A-Z][A-Za-z]*|[A-Z][A-Z_]*|[\w$]+(?:\.[\w$]+)+)?(?:Access_?Denied|Denied|Error|Exception|Expired\w*|Forbidden"
    r"|Invalid\w*|NotFound|NoSuch\w*|NotMatch|Throttl\w*|Timeout|Unavailable|DENIED|ERROR|EXPIRED|FAILED|FORBIDDEN"
    r"|INVALID\w*|NOT_FOUND|TIMEOUT|UNAVAILABLE)[.!]?|[A-Z][A-Za-z]+(?:_[A-Z][A-Za-z]+)*_Error"
)
"""A code of an error in one word, such as `NoSuchKey`, `ERR_NOT_FOUND` or `java.lang.NullPointerException`."""
_TRACE = re.compile(r"Traceback \(most recent call last\)|[\w$.]+(?:Exception|Error)\b[^\n]*\n\s+at |panic: ")
_PARAMETERS = re.compile(r"\w+=[^\s&,]*(?:&\w+=[^\s&,]*)+")
_SINGLE_WORDS = frozenset(
    (
        "denied", "error", "fail", "failed", "failure", "false", "forbidden", "invalid", "nil", "none", "null", "ok",
        "success", "timeout", "true", "unauthorized", "undefined", "unknown",
    )
)  # fmt: skip
_HAN_ERROR = re.compile(
    r"[\u3002\uff01\uff0c]|错误|失败|异常|超时|繁忙|不存在|无权|未授权|未登录|过期|失效|无效|非法|拒绝|稍后|请重新|请联系|请登录|未找到|找不到|錯誤|失敗|逾時"
)
"""Words of errors in Chinese. The name of a column has no mark of a sentence."""
_LETTERS = re.compile(r"[^\W\d_]{2}")


def markup_name(text: str) -> str | None:
    """Returns what a text is if it begins like markup, for a message; None if it does not."""
    if not _MARKUP.match(text):
        return None
    beginning = text[:_LONGEST_BEGINNING].lower()
    if beginning.startswith(("<!doctype html", "<html")):
        return "an HTML page"
    return "an XML document" if beginning.startswith("<?xml") else "a page of markup"


def begins_like_json(text: str) -> bool:
    """Whether a text begins like a JSON object or array, or like a form in which scripts get one. No table does."""
    return _JSON.match(text) is not None or _SCRIPT.match(text) is not None


def json_value(text: str) -> dict[str, Any] | list[Any] | None:
    """Returns the JSON object or array that a text is; None if it is neither."""
    try:
        value = json.loads(text) if text.startswith(("{", "[")) else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def is_json_error(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object has the fields of an error message. Another one may be the row of a user."""
    return not _ERROR_FIELDS.isdisjoint(name.lower().replace("_", "") for name in value)


def is_message(text: str) -> bool:
    """Whether a whole body is a message of a few words, and not a table.

    A table with one line has only a header. A header of several English words without a separator is not expected.

    Args:
        text: Without blanks around it.
    """
    if _TRACE.match(text):
        return True
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(text) > _MESSAGE_MAX_CHARACTERS or not 0 < len(lines) <= _MESSAGE_MAX_LINES:
        return False
    if len(lines) == 1:
        return _is_message_line(lines[0])
    return not _SEPARATORS.search(text) and all(map(_has_words, lines)) and _ERROR.search(text) is not None


def has_chunk_framing(body: bytes) -> bool:
    """Whether a body still has the framing of chunks, which a store or a server took for data.

    Args:
        body: The whole body, or the beginning of a long one.
    """
    position, long_chunks = 0, 0
    while (found := _CHUNK_HEAD.match(body, position)) is not None:
        size = int(found[1], 16)
        if size == 0:
            return position > 0 and _CHUNK_END.fullmatch(body, found.end()) is not None
        position = found.end() + size
        if body[position : position + 2] != b"\r\n":
            # The rest of this chunk is not known.
            return position >= len(body) and (long_chunks > 1 or found[2] is not None)
        position, long_chunks = position + 2, long_chunks + (size >= _LONG_CHUNK_BYTES)
    return position >= len(body) and long_chunks > 1


def is_error_text(text: str) -> bool:
    """Whether a text in place of rows is the beginning of a page, or a whole message that speaks of an error.

    Args:
        text: Without blanks around it.
    """
    if _PAGE.match(text):
        return True
    says_error = _ERROR.search(text) or _HAN_ERROR.search(text) or _ERROR_CODE.fullmatch(text)
    return says_error is not None and is_message(text)


def _is_message_line(line: str) -> bool:
    if len(line) > 2 and line[0] == line[-1] == '"' and '"' not in line[1:-1]:
        # A JSON string, or a name in quotes.
        line = line[1:-1]
        return line.lower() in _SINGLE_WORDS or (_ERROR.search(line) is not None and _has_words(line))
    if line.lower() in _SINGLE_WORDS or _ERROR_CODE.fullmatch(line) or _PARAMETERS.fullmatch(line):
        return True
    if not _SEPARATORS.search(line):
        says_error = _ERROR.search(line) is not None or _HAN_ERROR.search(line) is not None
        return (_has_words(line) and (line.isascii() or says_error)) or _HAN_ERROR.search(line) is not None
    # A sentence may have commas. The names in a header have fewer words.
    longest = max(len(part.split()) for part in _SEPARATORS.split(line))
    return longest > 3 and _ERROR.search(line) is not None


def _has_words(line: str) -> bool:
    """Whether a line begins with a letter or digit, and has two words at least, one of which has letters."""
    return line[0].isalnum() and len(line.split()) > 1 and _LETTERS.search(line) is not None


def beginning_of(body: bytes) -> str:
    """Returns the start of the text, without leading blanks. Decoding all of it takes a quarter of a small transfer."""
    text = text_of(body[:PEEK_BYTES])
    return text if len(text) >= _LONGEST_BEGINNING or len(body) <= PEEK_BYTES else text_of(body)


def text_of(body: bytes) -> str:
    """Returns the body as text, decoded approximately, without byte order marks and blanks at its start."""
    return _decoded(body).lstrip(" \t\r\n\f\v\ufeff\xa0\0")


def _decoded(body: bytes) -> str:
    """Decodes a body whose last character may be cut. Zero bytes show that it is UTF-16."""
    if body.startswith(BOM_UTF8):
        return body[len(BOM_UTF8) :].decode("utf-8", "replace")
    if body.startswith(BOM_UTF16_LE) or body[1:2] == b"\0":
        return body.decode("utf-16-le", "replace")
    if body.startswith(BOM_UTF16_BE) or body[:1] == b"\0":
        return body.decode("utf-16-be", "replace")
    try:
        return getincrementaldecoder("utf-8")().decode(body)
    except UnicodeDecodeError:
        return body.decode("gb18030", "replace")
