"""Secrets: configured as references, read as late as possible, and masked in everything that leaves the process."""

import html
import json
import re
import sys
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from export_worker.errors import ConfigError
from export_worker.references.errors import UnreadableReferenceError
from export_worker.references.reading import read_reference

MASK = "***"

MIN_SECRET_LENGTH = 4
"""Shorter values are not masked: a password `a` would mask half of every log line."""

EXCERPT_CHARACTERS = 300
"""Long enough for the sentence in an error of a platform, short enough for one log line."""
_EXCERPT_SOURCE_CHARACTERS = 4096
"""The beginning from which an excerpt is taken. Masking a long text would block the event loop."""
_EXCERPT_SOURCE_BYTES = 4 * _EXCERPT_SOURCE_CHARACTERS
_DECODING_ROUNDS = 3
"""Text that was escaped more often than this is not decoded further."""
_BASE64_MIN_BYTES = 8
"""Shorter secrets leave too few certain characters in base64, which ordinary text may contain by chance."""

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+")
_PERCENT_BYTE = re.compile(r"%(?:25){0,3}([0-9a-fA-F]{2})")
_ESCAPED = re.compile(
    r"\\+u(?P<u>[0-9a-fA-F]{4})"
    r"|\\+U(?P<long_u>00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})"
    r"|\\+u\{0{0,8}(?P<braced_u>(?:10|[0-9a-fA-F])?[0-9a-fA-F]{1,4})\}"
    r"|\\+x(?P<x>[0-9a-fA-F]{2})"
    r"|%u(?P<percent_u>[0-9a-fA-F]{4})"
    r"|(?P<percent>(?:%(?:25){0,3}[0-9a-fA-F]{2})+)"
    r"|&(?:amp;){0,3}(?:(?P<number>\#0{0,16}[0-9]{1,7}|\#[xX]0{0,16}[0-9a-fA-F]{1,6})(?:;|(?=[^0-9a-fA-F;]))"
    r"|(?P<entity>[A-Za-z][A-Za-z0-9]{1,30});)"
)
"""Every notation in which a platform's answer or a library may write a character by its number or name."""
_CUT_ESCAPE = re.compile(
    r"[\x80-\xff]{0,3}(?:\\+(?:u[0-9a-fA-F]{0,3}|u\{[0-9a-fA-F]{0,12}|U[0-9a-fA-F]{0,7}|x[0-9a-fA-F]?)?"
    r"|%u[0-9a-fA-F]{0,3}"
    r"|%(?:25){0,3}[0-9a-fA-F]?"
    r"|&(?:amp;){0,3}(?:\#[xX]?[0-9a-fA-F]{0,22}|[A-Za-z][A-Za-z0-9]{0,30})?|)\Z"
)
"""The beginning of an escaped character, at the end of a text that was cut: some bytes of it, or half of an escape."""
_CUT_ESCAPE_MAX = 64
"""Characters at the end in which such a beginning is looked for."""
_SHORT_ESCAPES = str.maketrans({"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "+": " ", "\\": None})
"""Makes a text and its forms with short escapes, such as `\\n` or `\\"`, the same."""
_PIECES = re.compile(r"\\+|[A-Za-z0-9]+|.", re.DOTALL)
_ESCAPES = r"\\{0,8}+"
"""Each level of escaping doubles the backslashes; JSON in JSON in JSON has eight. The quantifier is possessive, so the
pattern never backtracks into it."""


def reveal(secret: SecretStr, setting: str, *, again: bool = False) -> str:
    """Returns the secret that a setting refers to: `env:NAME`, `file:/path`, `aws-sm:NAME`, or the value itself.

    Args:
        secret: The value in the configuration.
        setting: Name of the setting for the error, e.g. `connections.gio.token`.
        again: Reads a secret of AWS again that has been read before.

    Raises:
        ConfigError: The variable is not set, or the file or the secret cannot be read or is empty.
    """
    try:
        return read_reference(secret.get_secret_value(), again=again)
    except UnreadableReferenceError as error:
        raise ConfigError(f"{setting}: {error}") from None


@dataclass(frozen=True, slots=True)
class _Forms:
    """The forms of one secret.

    Args:
        escaped: A pattern of the plain and the escaped ones.
        literal: The secret in base64, and in lower case, as the host of a URL or a media type is shown.
        uncut: A text that was cut may end with the beginning of one of them.
    """

    escaped: re.Pattern[str]
    literal: tuple[str, ...]
    uncut: tuple[str, ...]

    @classmethod
    def of(cls, secret: str) -> "_Forms":
        """Returns the forms of a secret."""
        literal = tuple({secret.lower()} - {secret}) + _base64_forms(secret)
        pattern = re.compile("".join(map(_any_form, _PIECES.findall(secret))))
        uncut = (secret, _Decoded(secret).text, *literal)
        return cls(pattern, literal, tuple(dict.fromkeys(each.translate(_SHORT_ESCAPES) for each in uncut)))


class Redactor:
    """Masks known secrets anywhere in a text: plain, in base64, or escaped as in URLs, JSON, HTML or a repr."""

    def __init__(self) -> None:
        self._known: dict[str, _Forms] = {}
        self._shortest = sys.maxsize
        """The length of the shortest form of a secret. No shorter text contains one."""
        self._holders = Counter[str]()
        self._lock = Lock()

    def add(self, secret: str | None) -> None:
        """Masks this value from now on. None and short values are ignored."""
        if secret is None or len(secret) < MIN_SECRET_LENGTH:
            return
        forms = self._known.get(secret) or _Forms.of(secret)
        with self._lock:
            self._holders[secret] += 1
            # Longest first: if a shorter secret that begins a longer one were masked first, the rest would remain. A
            # new dictionary: threads that fetch credentials add to it while other threads still use the old one.
            known = {**self._known, secret: forms}
            self._set_known(dict(sorted(known.items(), key=lambda item: len(item[0]), reverse=True)))

    def _set_known(self, known: dict[str, _Forms]) -> None:
        self._shortest = min((len(form) for forms in known.values() for form in forms.uncut), default=sys.maxsize)
        self._known = known

    def extended(self, secrets: Iterable[str]) -> "Redactor":
        """Returns a redactor that masks these values as well, for one message. This one does not mask them."""
        other = Redactor()
        other._set_known(self._known)
        for secret in secrets:
            other.add(secret)
        return other

    def rotating(self, count: int) -> Callable[[str | None], None]:
        """Returns an `add` for secrets that replace each other: only the last `count` of them are masked.

        Masking is slower with each known secret, and an assumed IAM role has new secrets each hour. A secret that was
        also added in another way stays masked: another setting may have the same value.
        """
        last = deque[str]()

        def add(secret: str | None) -> None:
            if secret is None or len(secret) < MIN_SECRET_LENGTH:
                return
            if secret in last:
                last.remove(secret)
            else:
                self.add(secret)
            last.append(secret)
            if len(last) > count:
                self._release(last.popleft())

        return add

    def _release(self, secret: str) -> None:
        with self._lock:
            self._holders[secret] -= 1
            if not self._holders[secret]:
                del self._holders[secret]
                self._set_known({known: forms for known, forms in self._known.items() if known != secret})

    def text(self, text: str) -> str:
        """Returns the text with every known secret masked."""
        if len(text) < self._shortest:
            return text
        for forms in self._known.values():
            text = forms.escaped.sub(MASK, text)
            for literal in forms.literal:
                text = text.replace(literal, MASK)
        # The search for one character is many times faster than that for an escaped one.
        has_escapes = self._known and ("%" in text or "&" in text or "\\" in text) and _ESCAPED.search(text)
        return self._text_with_escapes(text) if has_escapes else text

    def excerpt(self, text: str, limit: int = EXCERPT_CHARACTERS, *, is_cut: bool = False) -> str:
        """Returns the beginning of a text on one line: without secrets, without control characters, and cut.

        Secrets are masked before anything else is done: half a secret, or one with other blanks, is not recognized.

        Args:
            is_cut: The text is the beginning of a longer one, so it may end with a part of a secret.
        """
        is_cut = is_cut or len(text) > _EXCERPT_SOURCE_CHARACTERS
        # Text in UTF-16 or UTF-32 that was read as UTF-8 has zero bytes between its characters.
        text = text[:_EXCERPT_SOURCE_CHARACTERS].replace("\0", "").encode(errors="replace").decode()
        line = _UNPRINTABLE.sub(" ", self.text(self._without_cut_secret(text) if is_cut else text))
        # Masked again: without its line breaks, the text may contain a secret that it did not contain before.
        line = self.text(self._without_cut_secret(line) if is_cut else line).strip()
        return line if len(line) <= limit else line[: limit - 1] + "…"

    def masked_bytes(self, body: bytes, *, is_cut: bool = False) -> bytes:
        """Returns the beginning of a body of unknown charset, with secrets masked in its bytes.

        Decoded by the wrong charset, the first character of a secret may become a part of the character before it.

        Args:
            is_cut: See `excerpt`.
        """
        text = body[:_EXCERPT_SOURCE_BYTES].decode(errors="surrogateescape")
        masked = self.text(self._without_cut_secret(text) if is_cut else text)
        return masked.encode(errors="surrogateescape")

    def _without_cut_secret(self, text: str) -> str:
        """Returns the text without the beginning of a secret at its end."""
        decoded = _Decoded(text)
        found = _CUT_ESCAPE.search(decoded.text[-_CUT_ESCAPE_MAX:])
        end = len(decoded.text) - (len(found[0]) if found else 0)
        places = [index for index in range(end) if decoded.text[index] != "\\"]
        plain = decoded.text[:end].translate(_SHORT_ESCAPES)
        cut = max((_overlap(plain, each) for forms in self._known.values() for each in forms.uncut), default=0)
        if cut:
            end = places[-cut]
        return text if end == len(decoded.text) else text[: decoded.span(end, end + 1)[0]]

    def _text_with_escapes(self, text: str) -> str:
        """Masks secrets of which any character is written by its number or name."""
        decoded = _Decoded(text)
        spans = [
            decoded.span(found.start(), found.end())
            for forms in self._known.values()
            for pattern in (forms.escaped, *map(re.compile, map(re.escape, forms.literal)))
            for found in pattern.finditer(decoded.text)
        ]
        for start, end in reversed(_merged(spans)):
            text = text[:start] + MASK + text[end:]
        return text

    def value(self, value: Any) -> Any:
        """Returns a value for a log or document, with every string in it masked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "backslashreplace"))
        if isinstance(value, dict):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        if isinstance(value, bool | int | float | None):
            return value
        return self.text(str(value))


class _Decoded:
    """A text with its escaped characters decoded, that knows where each character was in the original."""

    def __init__(self, original: str) -> None:
        self.text = original
        self._starts = list(range(len(original)))
        self._ends = [start + 1 for start in self._starts]
        for _ in range(_DECODING_ROUNDS):
            if not self._decode():
                break

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Returns where a part of the decoded text, which must not be empty, was in the original."""
        return self._starts[start], self._ends[end - 1]

    def _decode(self) -> bool:
        """Decodes one level. Returns false if nothing is escaped."""
        text, starts, ends, position = [], [], [], 0
        for found in _ESCAPED.finditer(self.text):
            text.append(self.text[position : found.start()])
            starts += self._starts[position : found.start()]
            ends += self._ends[position : found.start()]
            for character, start, end in _characters(found):
                text.append(character)
                starts += [self._starts[start]] * len(character)
                ends += [self._ends[end - 1]] * len(character)
            position = found.end()
        text.append(self.text[position:])
        starts += self._starts[position:]
        ends += self._ends[position:]
        decoded = "".join(text)
        changed = decoded != self.text
        self.text, self._starts, self._ends = decoded, starts, ends
        return changed


def _characters(found: re.Match[str]) -> Iterator[tuple[str, int, int]]:
    """Yields the characters of an escaped text, each with its start and end."""
    if found["percent"]:
        yield from _percent_characters(found[0], found.start())
    elif name := found["entity"] or found["number"]:
        yield html.unescape(f"&{name};"), found.start(), found.end()
    else:
        number = int(found["u"] or found["x"] or found["percent_u"] or found["long_u"] or found["braced_u"], 16)
        yield chr(number), found.start(), found.end()


def _percent_characters(text: str, start: int) -> Iterator[tuple[str, int, int]]:
    """Yields the characters of percent-encoded UTF-8. Bytes that are no UTF-8 are Latin-1."""
    places = list(_PERCENT_BYTE.finditer(text))
    data = bytes(int(place[1], 16) for place in places)
    index = 0
    while index < len(data):
        size = next((size for size in (1, 2, 3, 4) if _is_utf_8(data[index : index + size])), 0)
        character = data[index : index + size].decode() if size else chr(data[index])
        last = places[index + max(size, 1) - 1]
        yield character, start + places[index].start(), start + last.end()
        index += max(size, 1)


def _overlap(text: str, secret: str) -> int:
    """Returns how many characters at the end of the text are the beginning of the secret, but not all of it."""
    longest = min(len(text), len(secret) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(secret[:size])), 0)


def _is_utf_8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns the spans in order, with overlapping ones joined."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _base64_forms(secret: str) -> tuple[str, ...]:
    """Returns the secret in base64, alone or within a longer text, such as `user:secret`.

    Three bytes become four characters, so there are three forms, and each in the alphabet for URLs, too. Characters at
    the borders also depend on the neighbours, and are left out.
    """
    data = secret.encode("utf-8", "surrogatepass")
    if len(data) < _BASE64_MIN_BYTES:
        return ()
    forms = dict[str, None]()
    for shift in range(3):
        encoded = b64encode(bytes(shift) + data).decode()
        certain = encoded[-(-shift * 8 // 6) : (shift + len(data)) * 8 // 6]
        forms[certain] = forms[certain.replace("+", "-").replace("/", "_")] = None
    return tuple(forms)


def _any_form(piece: str) -> str:
    """Returns a pattern for every form of a piece of a secret. Libraries differ in the characters that they escape."""
    if piece.isascii() and piece.isalnum():
        return piece
    if piece.startswith("\\"):
        return rf"(?:\\{{{len(piece)},{8 * len(piece)}}}+|(?i:{_percent(piece)}))"
    forms = {piece, json.dumps(piece)[1:-1].lstrip("\\"), ascii(piece)[1:-1].lstrip("\\")}
    if piece == " ":
        forms.add("+")
    escaped = [re.escape(form).replace(r"\\", _ESCAPES) for form in sorted(forms, key=len, reverse=True)]
    return f"{_ESCAPES}(?i:{'|'.join([_percent(piece), *escaped])})"


def _percent(piece: str) -> str:
    """Returns a pattern for the percent-encoded piece. In a URL within a URL, the percent signs are encoded again."""
    return "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in piece.encode("utf-8", "surrogatepass"))


def url_passwords(address: str) -> list[str]:
    """Returns every password in the URL of a server such as Redis: before the host, or as a query parameter."""
    before_host, values = _password_and_query(address)
    return before_host + [value for name, value in values if name.endswith("password")]


def url_secrets(address: str) -> list[str]:
    """Returns everything in a URL that may be a credential: its password, and every value of its query string."""
    try:
        before_host, values = _password_and_query(address)
    except ValueError:
        return []
    return before_host + [value for _, value in values]


def _password_and_query(address: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the password before the host, if there is one, and the names and values of the query string."""
    url = urlsplit(address)
    return [] if url.password is None else [unquote(url.password)], parse_qsl(url.query)
