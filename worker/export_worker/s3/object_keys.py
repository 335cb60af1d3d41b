"""Builds the keys of objects: file names that are safe and distinct within one export, in the key template. Pure."""

import datetime as dt
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import count
from string import Formatter

from export_worker.contract.printable import BIDI_CONTROLS
from export_worker.s3.key_values import VALUE_MAX_BYTES, key_value

NAME_MAX_BYTES = 200
"""Leaves more than 800 bytes of a key to the prefix and the template."""
KEY_MAX_BYTES = 1024
"""S3 refuses longer keys."""
MANIFEST_NAME = "_manifest.json"
"""Readers of folders, such as Spark and Athena, pass over names that begin with an underscore."""
EARLIER_MANIFEST_NAME = "manifest.json"
"""The name that versions before 0.2 gave the manifest."""
RESERVED_NAMES = frozenset({MANIFEST_NAME, EARLIER_MANIFEST_NAME, "_SUCCESS"})
"""Names that files of an export do not get: the worker writes, or has written, objects of these names beside them."""
ARCHIVE_PREFIX_MAX = 500
"""Characters of the prefix of an archive. The rest of its keys is shorter than the other half of a key."""
KEY_FIELDS = ("kind", "connection", "date", "export_id", "file_name")
METADATA_FIELD = "metadata."
"""A field of this beginning is the value that the request's metadata has under the name behind it."""

_METADATA_FIELD = re.compile(re.escape(METADATA_FIELD) + r"[\w.-]{1,64}")
_FIELD_PATTERNS = {
    "kind": r"[^/]+",
    "connection": r"[A-Za-z0-9_-]{1,64}",
    "date": r"\d{4}-\d\d-\d\d",
    "export_id": r"[0-9a-f]{32}",
    "file_name": r".+",
}
_EXPORT_IDS = re.compile(f"(?=({_FIELD_PATTERNS['export_id']}))")
"""Finds all ids in a text, overlapping ones too."""
_DEFAULT_NAME = "download"
_EXTENSION_MAX_BYTES = 20
"""A longer suffix after a dot is part of a title and not an extension."""
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_REMOVED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, surrogates, line and paragraph separators: they break listings, logs and XML."""
_REMOVED_CHARACTERS = frozenset(f"/\\\ufffe\uffff{BIDI_CONTROLS}")
"""Path separators, two characters that XML cannot contain (a bucket with such keys cannot be listed), and controls of
the direction of writing."""
_LONGEST_VALUE = "x" * 64
"""No kind, connection or export id is longer."""


@dataclass(frozen=True, slots=True)
class KeyFields:
    """The values for the key template that all files of one export share."""

    kind: str
    connection: str
    date: dt.date
    export_id: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, str]:
        """Returns the values as text, by the name of the template's field."""
        return {
            "kind": self.kind,
            "connection": self.connection,
            "date": self.date.isoformat(),
            "export_id": self.export_id,
        } | {f"{METADATA_FIELD}{name}": value for name, value in self.metadata.items()}


def safe_name(name: str) -> str:
    """Returns a name that is valid in an S3 key and as a file on any disk.

    Unicode, spaces and `& # + % ?` are kept. Path separators, control characters and controls of the direction of
    writing are removed. The result has at most 200 bytes in UTF-8, and keeps the extension.
    """
    kept = "".join(character for character in name if _is_allowed(character))
    if kept.strip() in {"", ".", ".."}:
        return _DEFAULT_NAME
    stem, extension = _split(kept)
    return _joined(stem, extension)


def unique_names(names: Sequence[str], reserved: AbstractSet[str] = RESERVED_NAMES) -> list[str]:
    """Returns distinct names in the same order: a second `a.csv` becomes `a-2.csv`, a third `a-3.csv`.

    A name that occurs once is unchanged, even if it looks like a numbered one. Reserved names count as used.
    """
    originals = {*names, *reserved}
    used = set(reserved)
    numbered = {name: _numbered(name) for name in names}
    unique = []
    for name in names:
        new = name
        while new in used or (new != name and new in originals):
            new = next(numbered[name])
        used.add(new)
        unique.append(new)
    return unique


def validate_key_template(template: str, prefix: str = "") -> None:
    """Refuses a key template that cannot work, before an export needs it.

    Raises:
        ValueError: The braces are wrong, a field is not allowed, `{file_name}` is missing, or a key could be longer
            than 1,024 bytes.
    """
    pieces = _pieces(template)
    names = {name for _, name in pieces if name is not None}
    if "file_name" not in names:
        raise ValueError("must contain {file_name}, or the files of an export would share one key")
    _check_text(prefix + "".join(literal for literal, _ in pieces))
    longest = dict.fromkeys(KEY_FIELDS, _LONGEST_VALUE) | {"date": "0000-00-00", "file_name": "x" * NAME_MAX_BYTES}
    _check_length(_filled(prefix, pieces, dict.fromkeys(names, "x" * VALUE_MAX_BYTES) | longest))


def render_key(prefix: str, template: str, fields: KeyFields, file_name: str) -> str:
    """Returns the key of one object: the prefix, unchanged, then the template with its fields filled in.

    Braces within a value are not read as a template.

    Raises:
        ValueError: The template is wrong (see `validate_key_template`), or the key is longer than 1,024 bytes.
    """
    key = _filled(prefix, _pieces(template), fields.values() | {"file_name": file_name})
    _check_length(key)
    return key


def key_prefix(prefix: str, template: str, fields: KeyFields) -> str:
    """Returns the part that the keys of all files of one export begin with: everything before the file name.

    Raises:
        ValueError: The template is wrong (see `validate_key_template`).
    """
    shared = list[Piece]()
    for literal, name in _pieces(template):
        if name == "file_name":
            shared.append((literal, None))
            break
        shared.append((literal, name))
    return _filled(prefix, shared, fields.values())


def archive_prefix(prefix: str) -> str:
    """Returns the prefix of an archive, with a slash at its end.

    Raises:
        ValueError: Readers would not find objects under it, or a key could be too long.
    """
    folder = prefix.strip("/")
    if not folder or len(folder) > ARCHIVE_PREFIX_MAX:
        raise ValueError(f"must have 1 to {ARCHIVE_PREFIX_MAX} characters, such as history/")
    if any(name.startswith(("_", ".")) or not name for name in folder.split("/")):
        raise ValueError("must have no name that is empty or begins with _ or ., which readers of folders pass over")
    _check_text(folder)
    return f"{folder}/"


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """Finds the exports that may have a key.

    Args:
        id_and_key: Matches an export's id, a line end, and a key of this export.
    """

    id_and_key: re.Pattern[str]

    def export_ids(self, key: str) -> set[str]:
        """Returns the ids of the exports that may have this key. The right one is always among them.

        There are several if the text beside the id in the key looks like an id, for example a value of metadata. There
        is none if no export has such a key.
        """
        return {found for found in _EXPORT_IDS.findall(key) if self.id_and_key.fullmatch(f"{found}\n{key}")}


def key_pattern(prefix: str, template: str) -> KeyPattern | None:
    """Returns a pattern for every key of `render_key`.

    Returns None for a template without `{export_id}`: its keys do not show which export they belong to.
    """
    if all(name != "export_id" for _, name in _pieces(template)):
        return None
    seen = {"export_id"}
    pattern = f"(?P<export_id>{_FIELD_PATTERNS['export_id']})\n{re.escape(prefix)}"
    for literal, name in _pieces(template):
        pattern += re.escape(literal)
        if name is not None and _METADATA_FIELD.fullmatch(name):
            pattern += "[^/]+"
        elif name is not None:
            pattern += f"(?P={name})" if name in seen else f"(?P<{name}>{_FIELD_PATTERNS[name]})"
            seen.add(name)
    return KeyPattern(re.compile(pattern, re.DOTALL))


def _is_allowed(character: str) -> bool:
    return character not in _REMOVED_CHARACTERS and unicodedata.category(character) not in _REMOVED_CATEGORIES


def _split(name: str) -> tuple[str, str]:
    """Returns stem and extension. `.csv.gz` is one extension; a leading dot does not begin an extension."""
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
    """Returns stem and extension, shortened to the limit. No character is cut in two."""
    room = NAME_MAX_BYTES - len(extension.encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + extension


def _numbered(name: str) -> Iterator[str]:
    """Yields the name with the numbers 2, 3, … Only the stem is shortened: the number makes the name distinct."""
    stem, extension = _split(name)
    return (_joined(stem, f"-{number}{extension}") for number in count(2))


Piece = tuple[str, str | None]
"""Literal text of a template, and the field after it, if there is one."""


def _pieces(template: str) -> list[Piece]:
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"is not a valid template: {error}") from None
    pieces = []
    for literal, name, spec, conversion in parsed:
        if name is not None and (not _is_field(name) or spec or conversion):
            allowed = ", ".join(f"{{{known}}}" for known in (*KEY_FIELDS, f"{METADATA_FIELD}NAME"))
            raise ValueError(f"{{{name}}} is not allowed in this form; the fields are {allowed}, without format codes")
        pieces.append((literal, name))
    return pieces


def _is_field(name: str) -> bool:
    return name in KEY_FIELDS or _METADATA_FIELD.fullmatch(name) is not None


def _filled(prefix: str, pieces: Sequence[Piece], values: Mapping[str, str]) -> str:
    """Returns the prefix and the pieces with their values. Only metadata may lack a value."""
    text = prefix
    for literal, name in pieces:
        text += literal
        if name is not None:
            text += key_value(values.get(name), text) if name.startswith(METADATA_FIELD) else values[name]
    return text


def _check_text(text: str) -> None:
    refused = [character for character in text if character not in "/\\" and not _is_allowed(character)]
    if refused:
        raise ValueError(f"must not contain control characters (found {refused[0]!a})")


def _check_length(key: str) -> None:
    size = len(key.encode())
    if size > KEY_MAX_BYTES:
        raise ValueError(f"the key would have up to {size} bytes; S3 allows {KEY_MAX_BYTES}")
