"""Lua scripts of the producer side. Each is atomic in Redis.

`export_worker.redis.scripts` describes how they are called.
"""

from importlib.resources import files

from export_worker.redis.scripts import INDEXES, ROWS, SHARING

_FURTHER = {"list": ROWS, "enqueue": SHARING}


def script(name: str) -> str:
    """Returns the source of one script, e.g. `enqueue`. It can use the indexes as the scripts of the worker do."""
    return INDEXES + _FURTHER.get(name, "") + own_script(name)


def fire_script() -> str:
    """Returns the source of the script that fires schedules. It enqueues exports within the same atomic write."""
    return f"{INDEXES}{SHARING}local function enqueue(KEYS, ARGV)\n{own_script('enqueue')}\nend\n{own_script('fire')}"


def own_script(name: str) -> str:
    """Returns the source of one script that uses no indexes."""
    return (files(__name__) / f"{name}.lua").read_text(encoding="utf-8")
