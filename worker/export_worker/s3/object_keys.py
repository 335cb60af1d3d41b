"""The names of what lands in S3: safe, distinct within one export, and put into the key template. Pure."""

import datetime as dt
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import count
from string import Formatter

NAME_MAX_BYTES = 200
"""Leaves more than 800 bytes of a key to prefix and template."""
KEY_MAX_BYTES = 1024
"""S3 refuses a longer key."""
RESERVED_NAMES = frozenset({"manifest.json", "_SUCCESS"})
"""Ours, beside the files of an export."""
KEY_FIELDS = ("kind", "connection", "date", "export_id", "file_name")

_SHAPES = {
    "kind": r"[^/]+",
    "connection": r"[A-Za-z0-9_-]{1,64}",
    "date": r"\d{4}-\d\d-\d\d",
    "export_id": r"[0-9a-f]{32}",
    "file_name": r".+",
}
_NO_NAME = "download"
_EXTENSION_MAX_BYTES = 20
"""A longer tail after a dot is part of a title, not an extension."""
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_UNWANTED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, surrogates, line and paragraph separators: they break listings, logs and XML."""
_UNWANTED = frozenset("/\\\ufffe\uffff")
"""Path separators, and the two characters that XML cannot carry: a bucket with them cannot be listed."""
_LONGEST_VALUE = "x" * 64
"""No kind, connection or export id is longer."""


def safe_name(name: str) -> str:
    """A name that can stand in an S3 key and as a file on any disk.

    Unicode, spaces and `& # + % ?` stay as they are. Path separators and control characters go. At most 200 bytes as
    UTF-8, with the extension kept.
    """
    kept = "".join(character for character in name if _wanted(character))
    if kept.strip() in {"", ".", ".."}:
        return _NO_NAME
    stem, extension = _split(kept)
    return _joined(stem, extension)


def unique_names(names: Sequence[str]) -> list[str]:
    """Distinct names, in the same order: a second `a.csv` becomes `a-2.csv`, a third `a-3.csv`.

    A name that stands there once keeps its form, also when it looks like a numbered one. `manifest.json` and
    `_SUCCESS` count as taken.
    """
    originals = {*names, *RESERVED_NAMES}
    given = set(RESERVED_NAMES)
    numbered = {name: _numbered(name) for name in names}
    unique = []
    for name in names:
        new = name
        while new in given or (new != name and new in originals):
            new = next(numbered[name])
        given.add(new)
        unique.append(new)
    return unique


def validate_key_template(template: str, prefix: str = "") -> None:
    """Refuse a key template that cannot work, before any export needs it.

    Raises:
        ValueError: Bad braces, a field that is not allowed, no `{file_name}`, or keys that could pass 1,024 bytes.
    """
    fields = {field for _, field in _pieces(template)}
    if "file_name" not in fields:
        raise ValueError("must contain {file_name}, or the files of an export would share one key")
    _check_text(prefix + "".join(literal for literal, _ in _pieces(template)))
    longest = dict.fromkeys(KEY_FIELDS, _LONGEST_VALUE) | {"date": "0000-00-00", "file_name": "x" * NAME_MAX_BYTES}
    _check_length(prefix + _fill(template, longest))


def render_key(
    prefix: str,
    template: str,
    *,
    kind: str,
    connection: str,
    date: dt.date,
    export_id: str,
    file_name: str,
) -> str:
    """The key of one object: the prefix as it stands, then the template with its fields filled in.

    A value is never read as a template again, whatever braces it holds.

    Raises:
        ValueError: The template is wrong (see `validate_key_template`), or the key has more than 1,024 bytes.
    """
    values = {
        "kind": kind,
        "connection": connection,
        "date": date.isoformat(),
        "export_id": export_id,
        "file_name": file_name,
    }
    key = prefix + _fill(template, values)
    _check_length(key)
    return key


def key_pattern(prefix: str, template: str) -> re.Pattern[str] | None:
    """Matches every key that `render_key` can give, the export's id in the group `export_id`.

    None for a template without `{export_id}`: whose a key is cannot be told then.
    """
    seen = set[str]()
    pattern = re.escape(prefix)
    for literal, field in _pieces(template):
        pattern += re.escape(literal)
        if field is not None:
            pattern += f"(?P={field})" if field in seen else f"(?P<{field}>{_SHAPES[field]})"
            seen.add(field)
    return re.compile(pattern, re.DOTALL) if "export_id" in seen else None


def _wanted(character: str) -> bool:
    return character not in _UNWANTED and unicodedata.category(character) not in _UNWANTED_CATEGORIES


def _split(name: str) -> tuple[str, str]:
    """Stem and extension; `.csv.gz` is one extension, a leading dot begins none."""
    stem, extension = _split_once(name)
    if extension.lower() in _COMPRESSED:
        inner_stem, inner_extension = _split_once(stem)
        return inner_stem, inner_extension + extension
    return stem, extension


def _split_once(name: str) -> tuple[str, str]:
    stem, dot, tail = name.rpartition(".")
    if not stem or not tail or len(tail.encode()) >= _EXTENSION_MAX_BYTES:
        return name, ""
    return stem, dot + tail


def _joined(stem: str, extension: str) -> str:
    """Stem and extension within the bound; never cuts a character in two."""
    room = NAME_MAX_BYTES - len(extension.encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + extension


def _numbered(name: str) -> Iterator[str]:
    stem, extension = _split(name)
    return (_joined_numbered(stem, number, extension) for number in count(2))


def _joined_numbered(stem: str, number: int, extension: str) -> str:
    """The number survives the bound: it is what makes the name distinct."""
    return _joined(stem, f"-{number}{extension}")


def _pieces(template: str) -> list[tuple[str, str | None]]:
    """The template as (literal text, field that follows it or None)."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"is no template: {error}") from None
    pieces = []
    for literal, field, spec, conversion in parsed:
        if field is not None and (field not in KEY_FIELDS or spec or conversion):
            allowed = ", ".join(f"{{{name}}}" for name in KEY_FIELDS)
            raise ValueError(f"{{{field}}} is not allowed as it stands; the fields are {allowed}, without more")
        pieces.append((literal, field))
    return pieces


def _fill(template: str, values: dict[str, str]) -> str:
    return "".join(literal + (values[field] if field else "") for literal, field in _pieces(template))


def _check_text(text: str) -> None:
    unwanted = [character for character in text if character not in "/\\" and not _wanted(character)]
    if unwanted:
        raise ValueError(f"must not contain control characters (found {unwanted[0]!a})")


def _check_length(key: str) -> None:
    size = len(key.encode())
    if size > KEY_MAX_BYTES:
        raise ValueError(f"the key would have up to {size} bytes; S3 allows {KEY_MAX_BYTES}")
