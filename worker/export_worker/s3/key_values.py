"""Values of the request's metadata in object keys. Pure.

A producer chooses these values, so they may contain anything. Each becomes one segment of a key, or a part of one.
Characters are percent-encoded and not removed, as Hive does in the names of its partitions: different values have
different keys, and Spark, DuckDB, polars and pyarrow return the value that the request had.
"""

import re
import unicodedata
from hashlib import sha256

VALUE_MAX_BYTES = 100
"""Leaves room in a key of 1,024 bytes for several values beside a file name of 200 bytes."""
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""Readers of Hive partitions, such as Spark, Athena and DuckDB, return this value as null."""
NO_VALUE = "none"
"""Instead of `NULL_PARTITION` where a segment does not have the form `name=value`: readers pass over folders whose name
begins with `_`."""

_KEPT_ASCII = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
"""Needs no encoding in URLs, and means nothing in paths, patterns and templates."""
_ENCODED_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs"})
"""Characters that are invisible, that change the direction of text, or that look like a space."""
_ENCODED_CHARACTERS = frozenset("\ufffe\uffff")
"""XML cannot contain them: a bucket with such keys cannot be listed."""
_HIDING = ("_", ".")
"""Readers of folders pass over names that begin with one of these."""
_DIGEST_LENGTH = 12
_WHOLE_CHARACTERS = re.compile(r"(?:%[0-9A-F]{2}|[^%])*")
"""The part of a cut text before an incomplete escape."""


def key_value(value: str | None, before: str) -> str:
    """Returns a value as it is in a key: at most 100 bytes, and never empty.

    Args:
        value: The value of the request; None if the request does not have it.
        before: The part of the key before it.
    """
    if not value:
        return NULL_PARTITION if before.endswith("=") else NO_VALUE
    first, rest = value[0], value[1:]
    encoded = (_escaped(first) if first in _HIDING else _encoded(first)) + "".join(map(_encoded, rest))
    return encoded if len(encoded.encode()) <= VALUE_MAX_BYTES else _shortened(encoded)


def _encoded(character: str) -> str:
    return character if _is_kept(character) else _escaped(character)


def _is_kept(character: str) -> bool:
    if character.isascii():
        return character in _KEPT_ASCII
    return character not in _ENCODED_CHARACTERS and unicodedata.category(character) not in _ENCODED_CATEGORIES


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _shortened(encoded: str) -> str:
    """Returns the beginning of a long value and a digest of all of it, so that long values stay distinct."""
    digest = sha256(encoded.encode()).hexdigest()[:_DIGEST_LENGTH]
    room = VALUE_MAX_BYTES - len(digest) - 1
    start = _WHOLE_CHARACTERS.match(encoded.encode()[:room].decode("utf-8", "ignore"))
    return f"{start.group() if start else ''}-{digest}"
