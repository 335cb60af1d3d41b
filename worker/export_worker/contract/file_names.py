"""What the extension of a file's name says about its content."""

from pathlib import PurePosixPath

JSON_EXTENSIONS = frozenset((".json", ".jsonl", ".ndjson"))
TABLE_EXTENSIONS = frozenset((".csv", ".tsv"))
BINARY_EXTENSIONS = frozenset((".gz", ".gzip", ".parquet", ".tgz", ".xls", ".xlsx", ".zip", ".zst", ".zstd"))
"""Compressed files and tables that are no text."""
MARKUP_EXTENSIONS = frozenset((".xml", ".html", ".htm", ".xhtml", ".svg"))


def extension_of(file_name: str) -> str:
    """Returns the last extension of a name in lower case, with its dot; empty if it has none."""
    return PurePosixPath(file_name.lower()).suffix
