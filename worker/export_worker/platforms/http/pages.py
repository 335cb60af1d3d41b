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

_MARKUP = re.compile(r"(?!<\w[\w ]*>(?:[,;\t|]<\w[\w ]*>)+\s*(?:\n|$))<(?:\s*[!?/%]|[^\W\d])")
"""Markup, but not a header whose names are in angle brackets."""
_PAGE = re.compile(
    r"<(?:[!?%]|/?(?:body|br|center|div|error|fault|h\d|head|html|meta|p|pre|response|script|style|title|\w+:envelope)\b)",
    re.IGNORECASE,
)
"""The beginning of a page where a value of a user may begin with another tag."""
_DOCUMENT = re.compile(r"<(?:!|\?|/?(?:body|error|head|html|script)\b|\w+:envelope\b)", re.IGNORECASE)
"""The beginning of a page that is no value of a user."""
_PERSONAL = re.compile(r"\d{5}|@")
"""Phone numbers, identifiers and addresses. Messages with one of them are not quoted."""
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
        "detail", "error", "errors", "errcode", "errmsg", "errorcode", "errordescription", "errorinfo", "errormessage",
        "exception", "message", "msg", "returnmessage",
    )
)  # fmt: skip
_BESIDE_ERRORS = frozenset(
    (
        "code", "error", "errorid", "hostid", "instance", "method", "ok", "path", "reason", "requestid", "resource",
        "retryafter", "returncode", "stack", "status", "statuscode", "success", "timestamp", "title", "trace",
        "traceid", "type",
    )
)  # fmt: skip
_RESULT_FIELDS = frozenset(("data", "result"))
"""They are empty beside an error. An empty list may be a list of users."""
_SEPARATORS = re.compile(r"[,\t;|]")
_SENTENCE = (
    r"\bplease (?:try|retry|contact|wait|log|sign|check|enable|verify|complete|re-?\w+)|\btry again|\bsorry\b"
    r"|\b(?:access|permission|request)(?: is| was)? denied|unavailable|\btimed out|unauthori[sz]ed"
    r"|internal server error|\bcontact (?:the|your|our|an?|admin\w*)\b|\bupstream connect|\bconnection refused"
    r"|\bwas not found"
)
_STRONG = re.compile(
    rf"{_SENTENCE}|\bdenied\b|\bexception\b|\bforbidden\b|\bnot found|\bno such\b|\bnot allowed|\brefused\b"
    r"|\btimed?[ -]?out\b|\btoo many\b|\bunable\b|\bbad (?:gateway|request)|\bcaptcha\b|\bconnection reset|\breset by\b"
    r"|\bmoved (?:permanently|temporarily)|\b(?:under|undergoing|down for|in) maintenance"
    r"|\b(?:token|session|link|url|signature)\b.{0,20}\bexpired\b|\binvalid (?:token|key|signature|request)"
    r"|\b(?:failed|failure|error)[.!]?$|\ban error\b|^error\b[^:]{0,20}: "
    r"|\b(?:no healthy|prematurely closed by) upstream|\brate limit(?:ed|s)?\b"
    r"|\bdefault backend\b|\b(?:cannot|could not|can't|couldn't) be\b",
    re.IGNORECASE,
)
"""Words of errors that hardly any column has in its name. The first part is also clear beside commas."""
_STRONG_BESIDE_SEPARATORS = re.compile(_SENTENCE, re.IGNORECASE)
_WEAK = re.compile(r"error|exceed|expired|fail|invalid|missing|unknown|wrong", re.IGNORECASE)
"""Words that occur in sentences about errors and in the names of columns."""
_WEAK_WORDS_MIN, _WORDS_MIN = 4, 5
"""Words of a sentence, with a weak word or with none. Names of columns have fewer."""
_COLUMN_NAME = re.compile(
    r"(?:numbers?|counts?|dates?|times?|names?|types?|shares?|total|sum|percentage) of\b|reasons? for\b"
    r"|(?:[\w()%-]+ ){1,3}(?:counts?|rate|date|times?|types?|ids?|level|reasons?|status|number|total|at)$",
    re.IGNORECASE,
)
_ERROR_CODE = re.compile(
    r"(?:[A-Z][A-Za-z]*|[A-Z][A-Z_]*|[\w$]+(?:\.[\w$]+)+)?(?:Access_?Denied|Denied|Error|Exception|Expired\w*|Forbidden"
    r"|Invalid\w*|NotFound|NoSuch\w*|NotMatch|Throttl\w*|Timeout|Unavailable|DENIED|ERROR|EXPIRED|FAILED|FORBIDDEN"
    r"|INVALID\w*|NOT_FOUND|TIMEOUT|UNAVAILABLE)[.!]?|[A-Z][A-Za-z]+(?:_[A-Z][A-Za-z]+)*_Error"
    r"|(?:access|permission)_denied|(?:token|session)_expired|invalid_(?:token|grant|client|request|signature|key)"
    r"|internal_(?:server_)?error|server_error|(?:service|temporarily)_unavailable|rate_limit_exceeded"
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
_HAN_SENTENCE = re.compile(
    r"[\u3002\uff01]|请(?:稍后|稍候|重新|重试|联系|登录|先)|稍后(?:再|重)试"
    r"|請(?:稍後|稍候|重新|重試|聯繫|聯絡|登入|登錄|先)|稍後(?:再|重)試"
)
"""What only a sentence has. A comma of Chinese may be within the name of a column."""
_HAN_STATEMENT = re.compile(
    r"(?:(?:系统|内部|服务器?|网络|参数)(?:内部)?(?:错误|异常|繁忙|不可用)|(?:操作|请求|登录|下载|访问)失败|(?:请求|连接|访问)超时"
    r"|没有(?:\w{0,4})权限|无权(?:限|访问)|未授权|未登录|(?:token|令牌|签名|会话|链接)(?:过期|失效)|已过期|已失效|(?:用户|资源|页面|文件|任务)不存在"
    r"|(?:系統|內部|伺服器|服務器?|網路)(?:內部)?(?:錯誤|異常|繁忙|忙碌|不可用)|(?:操作|請求|登入|登錄|下載)失敗|(?:請求|連線)逾時"
    r"|沒有權限|無權(?:限|訪問|存取)|未授權|未登入|已過期|已失效|(?:用戶|使用者|資源|頁面|檔案|任務)不存在)"
    r"(?=$|[\s,;:.!\uff0c\uff1b\uff1a\u3001(\uff08\d]|[请請或])"
)
"""A statement about an error, at its end. Within a longer name, it is what a column counts."""
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
    """Whether a JSON object is an error message, with no field but those of messages. Another may be a user's row."""
    fields = {name.lower().replace("_", "").replace("-", ""): content for name, content in value.items()}
    results = [fields.pop(name) for name in _RESULT_FIELDS & fields.keys()]
    if any(result not in (None, "", {}) for result in results) or fields.keys() - _ERROR_FIELDS - _BESIDE_ERRORS:
        return False
    return not _ERROR_FIELDS.isdisjoint(fields) or fields.get("success") is False


def is_message(text: str) -> bool:
    """Whether a whole body is a message of a few words, and not a table.

    A table with one line has only a header. A table with one column may have names of several words.

    Args:
        text: Without blanks around it.
    """
    if _TRACE.match(text) or _is_clear_message(text):
        return True
    lines = _lines_of_message(text)
    if len(lines) > 1:
        return _speaks_weakly(lines[0]) and all(map(_has_words, lines)) and not _SEPARATORS.search(text)
    return len(lines) == 1 and _is_message_line(_unquoted(lines[0]), is_quoted=_unquoted(lines[0]) != lines[0])


def is_quotable(text: str) -> bool:
    """Whether a body, or its beginning, may be quoted in a message of this project, because it has no rows of users.

    Args:
        text: Without blanks around it.
    """
    if _DOCUMENT.match(text):
        return True
    value = json_value(text)
    if value is not None:
        return isinstance(value, dict) and is_json_error(value)
    if _PERSONAL.search(text):
        return False
    return _PAGE.match(text) is not None or _TRACE.match(text) is not None or _is_clear_message(text)


def size_of_unquoted(body: bytes) -> str:
    """Returns what a message says in place of a body that is not quoted. More of the body may have been announced."""
    return f"{len(body)} bytes, not quoted since they may be rows of users"


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
    says_error = _STRONG.search(text) or _WEAK.search(text) or _says_han_error(text) or _ERROR_CODE.fullmatch(text)
    return bool(says_error) and is_message(text)


def _lines_of_message(text: str) -> list[str]:
    """Returns the lines of a text that is short enough for a message; no line of a longer one."""
    lines = [line.strip() for line in text[: _MESSAGE_MAX_CHARACTERS + 1].splitlines() if line.strip()]
    return lines if len(text) <= _MESSAGE_MAX_CHARACTERS and len(lines) <= _MESSAGE_MAX_LINES else []


def _is_clear_message(text: str) -> bool:
    """Whether a short text is a message whose words no header has. Of several lines, the first one decides."""
    lines = _lines_of_message(text)
    if not lines:
        return False
    first = _unquoted(lines[0])
    if len(lines) > 1:
        return _says_han_error(first) or (all(map(_has_words, lines)) and _speaks_strongly(first))
    if first.rstrip(".!").lower() in _SINGLE_WORDS or _ERROR_CODE.fullmatch(first):
        return True
    if _PARAMETERS.fullmatch(first):
        return first.startswith("error")
    return _says_han_error(first) or (_has_words(first) and _speaks_strongly(first))


def _is_message_line(line: str, *, is_quoted: bool) -> bool:
    """Whether the only line of a text, which is no clear message, is more than a header."""
    if _PARAMETERS.fullmatch(line):
        return True
    if _SEPARATORS.search(line) or not _has_words(line) or _COLUMN_NAME.match(line):
        return False
    return _speaks_weakly(line) or (line.isascii() and not is_quoted and len(line.split()) >= _WORDS_MIN)


def _unquoted(line: str) -> str:
    """Returns a line without the quotes around it: a JSON string, or a name in quotes."""
    is_quoted = len(line) > 2 and line[0] == line[-1] == '"' and '"' not in line[1:-1]
    return line[1:-1] if is_quoted else line


def _speaks_strongly(line: str) -> bool:
    if _SEPARATORS.search(line):
        return _STRONG_BESIDE_SEPARATORS.search(line) is not None
    return _STRONG.search(line) is not None and not _COLUMN_NAME.match(line)


def _speaks_weakly(line: str) -> bool:
    return _WEAK.search(line) is not None and len(line.split()) >= _WEAK_WORDS_MIN and not _COLUMN_NAME.match(line)


def _says_han_error(line: str) -> bool:
    """Whether a line has a sentence in Chinese, or begins with a statement about an error.

    After a comma, such a statement may be the name of a column that counts events.
    """
    return bool(_HAN_SENTENCE.search(line) or _HAN_STATEMENT.search(_SEPARATORS.split(line)[0].strip()))


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
