"""Where the settings file is. Apart from the settings, so that completion can read the file without pydantic."""

from collections.abc import Mapping
from pathlib import Path

DEFAULT_FILE = "export-worker.toml"
FILE_VARIABLE = "EXPORT_CONFIG"
"""The variable that names the file. No setting has this name."""


def settings_path(environment: Mapping[str, str]) -> Path | None:
    """Returns the file that `EXPORT_CONFIG` names, else `export-worker.toml` if it exists."""
    named = environment.get(FILE_VARIABLE)
    file = Path(named or DEFAULT_FILE)
    return file if named or file.exists() else None
