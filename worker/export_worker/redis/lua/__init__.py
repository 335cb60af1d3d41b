"""The scripts that change an export's record. Each is one atomic write in Redis."""

from functools import cache
from importlib.resources import files


@cache
def script(*names: str) -> str:
    """The source of one script, e.g. `commit`; of several files when they build on each other."""
    return "\n".join((files(__name__) / f"{name}.lua").read_text(encoding="utf-8") for name in names)
