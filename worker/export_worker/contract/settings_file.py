"""Where the settings file is. Apart from the settings, so that completion can read the file without pydantic."""

from collections.abc import Mapping
from pathlib import Path

from export_worker.texts.decoding import decode_text

DEFAULT_FILE = "export-worker.toml"
FILE_VARIABLE = "EXPORT_CONFIG"
"""The variable that names the file. No setting has this name."""


def settings_path(environment: Mapping[str, str]) -> Path | None:
    """Returns the file that `EXPORT_CONFIG` names, else `export-worker.toml` if it exists."""
    named = environment.get(FILE_VARIABLE)
    file = Path(named or DEFAULT_FILE)
    return file if named or file.exists() else None


def settings_text(file: Path) -> str:
    """Returns the text of the settings file. Raises OSError if it cannot be read, and ValueError if it is no text."""
    return decode_text(file.read_bytes())
