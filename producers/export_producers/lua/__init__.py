"""Lua scripts of the producer side. Each is one atomic write in Redis.

`export_worker.redis.scripts` describes how they are called.
"""

from importlib.resources import files


def script(name: str) -> str:
    """Returns the source of one script, e.g. `enqueue`."""
    return (files(__name__) / f"{name}.lua").read_text(encoding="utf-8")
