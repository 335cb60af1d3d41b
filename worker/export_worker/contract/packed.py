"""Recognizes files that are no text by their first bytes: compressed files and Parquet, whatever their names say."""

import re

_PACKED = (
    ("gzip", re.compile(rb"\x1f\x8b\x08")),
    ("zstd", re.compile(rb"\x28\xb5\x2f\xfd")),
    ("zip", re.compile(rb"PK(?:\x03\x04|\x05\x06|\x07\x08)")),
    ("xz", re.compile(rb"\xfd7zXZ\0")),
    ("bzip2", re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")),
    # Every Parquet file has this byte after its four letters: the first field of a page, or of the footer.
    ("Parquet", re.compile(rb"PAR1\x15")),
)
"""Long enough that no text begins like this: a column may be called `BZh` or `PAR1`."""


def packed_format(block: bytes) -> str | None:
    """Returns the name of the format of a packed file by its first bytes; None if it may be text."""
    return next((name for name, beginning in _PACKED if beginning.match(block)), None)
