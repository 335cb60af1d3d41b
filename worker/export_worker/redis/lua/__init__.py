"""Lua scripts of the worker. Each is one atomic write in Redis.

`export_worker.redis.scripts` describes how they are called.
"""

from functools import cache
from importlib.resources import files

_BEFORE: dict[str, tuple[str, ...]] = {"indexes": ("changes",)}
"""Files that Redis runs before another one, wherever that one is joined."""


def claim_script(role: str) -> str:
    """Returns the source of the claim script of one role."""
    shared = ("past", "sharing") if role == "control" else ()
    return script("clock", "indexes", *shared, "turns", "claim", "breakers", f"claim_{role}")


def commit_script() -> str:
    """Returns the source of the script that saves decisions."""
    names = (
        "changes",
        "commit",
        "indexes",
        "keep",
        "turns",
        "commit_next",
        "statistics",
        "past",
        "batches",
        "sharing",
        "commit_end",
    )
    return script(*names)


@cache
def script(*names: str) -> str:
    """Returns the source of one script, e.g. `commit`, or of several files that are joined into one script."""
    parts = dict.fromkeys(part for name in names for part in (*_BEFORE.get(name, ()), name))
    return "\n".join((files(__name__) / f"{name}.lua").read_text(encoding="utf-8") for name in parts)
