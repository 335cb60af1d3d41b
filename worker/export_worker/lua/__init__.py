"""The scripts that change an export's record. Each is one atomic write in Redis."""

from functools import cache
from importlib.resources import files


@cache
def script(name: str) -> str:
    """The source of one script, e.g. `commit`."""
    return (files(__name__) / f"{name}.lua").read_text(encoding="utf-8")
