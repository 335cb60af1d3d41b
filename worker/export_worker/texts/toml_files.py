"""TOML files that people write: where a setting is, and what is wrong with a file. Pure."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

_AT_LINE = re.compile(r"at line (\d+)")
_QUOTED = re.compile(r"'([^']*)'")
_DECLARED = re.compile(r"\(('[^']*'(, )?)+,?\)")
"""How the TOML parser names a section: `('connections', 'gio')`."""
_TOML_HINTS = (
    (re.compile("[\u2018\u2019\u201c\u201d\u201e]"), "replace the typographic quotes by \" or '"),
    (re.compile(r'=\s*".*\\'), "write a text with backslashes in single quotes"),
    (re.compile(r"=\s*(True|False|TRUE|FALSE|yes|no|on|off)\s*(#.*)?$"), "write true or false"),
    (re.compile(r"=\s*[^\s\"'\[{\d]"), "text needs quotes"),
    (re.compile(r"^\s*(- |[\w.-]+:(\s|$))"), "this looks like YAML; this file is TOML"),
    (re.compile(r"^\s*\{"), "this looks like JSON; this file is TOML"),
)
"""What usually is wrong with a line that is not TOML."""


def toml_problem(text: str, error: ValueError) -> str:
    """Returns an error of the TOML parser, and what usually causes it."""
    message = _DECLARED.sub(lambda found: f"[{'.'.join(re.findall(_QUOTED, found[0]))}]", str(error))
    at = _AT_LINE.search(message)
    lines = text.split("\n")
    line = lines[int(at[1]) - 1] if at and int(at[1]) <= len(lines) else ""
    if message.startswith(("Cannot overwrite", "Cannot declare")):
        return f"{message}; each setting and each section is written once"
    return message + next((f"; {hint}" for pattern, hint in _TOML_HINTS if pattern.search(line)), "")


def line_of(text: str, path: Sequence[str]) -> tuple[int, int]:
    """Returns how many parts of a path the file has, and the first line with all of these."""
    found, section = (0, 0), tuple[str, ...]()
    for line, document, is_header in _statements(text):
        if is_header:
            section = _path_of_header(document)
        whole = document if is_header else _nested(section, document)
        depth = depth_of(whole, path)
        if depth > found[0]:
            found = (depth, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Yields the first line of every statement, what it says, and whether it is the header of a section."""
    start, chunk = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        chunk += line + "\n"
        # A value may have several lines: the statement is complete when it can be parsed.
        with suppress(tomllib.TOMLDecodeError):
            yield start, tomllib.loads(chunk), chunk.lstrip().startswith("[")
            start, chunk = number + 1, ""


def _path_of_header(document: Any) -> tuple[str, ...]:
    if isinstance(document, list):  # [[header]]
        return _path_of_header(document[0])
    return next(((name, *_path_of_header(inner)) for name, inner in document.items()), ())


def _nested(section: Sequence[str], document: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(section):
        document = {name: document}
    return document


def depth_of(document: Any, path: Sequence[str]) -> int:
    """Returns how many parts of a path the document has."""
    if not path or not isinstance(document, dict) or path[0] not in document:
        return 0
    return 1 + depth_of(document[path[0]], path[1:])
