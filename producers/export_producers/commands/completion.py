"""Completes names in a shell: connections, kinds, error codes and recent exports.

A shell asks with each TAB, so nothing here reads the whole configuration. If settings are wrong, or Redis does not
answer, nothing is offered.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from export_worker.contract.redis_keys import CHUNK_ROWS, ID_BYTES, ID_ROW_BYTES, Keys
from export_worker.contract.settings_file import settings_path, settings_text
from export_worker.errors import ErrorCode

RECENT_MAX = 50
"""Exports that are offered. A shell shows more only after a question."""
REDIS_TIMEOUT_S = 0.5
"""For each answer of Redis. People do not wait longer for a completion."""
_VARIABLE = re.compile(r"EXPORT_(CONNECTIONS|SCHEDULES|SINKS|TRIGGERS)__([A-Z0-9-]+(?:_[A-Z0-9-]+)*)__")
"""The start of a variable with a setting of a named section. A variable with a whole section is not read."""
_MOVED = re.compile(r"MOVED \d+ (.*):(\d+)$")
"""How a node of a cluster names the owner of a key. Without a host, it is the same host."""


def connections(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Returns the names of the configured connections; if there are none, those that workers have announced."""
    return matching(_configured("connections") or _announced(), incomplete)


def schedules(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Returns the names of the configured schedules."""
    return matching(_configured("schedules"), incomplete)


def sinks(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Returns the names of the configured sinks."""
    return matching(_configured("sinks") or ["stream"], incomplete)


def triggers(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Returns the names of the configured triggers."""
    return matching(_configured("triggers"), incomplete)


def kinds(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Returns the names of the kinds of export."""
    from export_worker.contract.kind_names import kind_names  # noqa: PLC0415 - reads the installed packages
    from export_worker.recipes.names import kinds_of_files  # noqa: PLC0415 - reads the recipes

    folder = (settings_path(os.environ) or Path()).parent
    return matching([*kind_names(), *kinds_of_files(_settings(), folder)], incomplete)


def recipes(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Returns the recipes that come with export-worker, then files."""
    from export_worker.recipes.names import box_names  # noqa: PLC0415 - reads the recipes

    names = [CompletionItem(name) for name in matching(list(box_names()), incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


def codes(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Returns the published error codes."""
    return matching(list(ErrorCode), incomplete)


def export_ids(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Returns the ids of the newest exports."""
    following = int((_ask("hmget", lambda keys: keys.numbers, ["next"]) or [None])[0] or 0)
    chunk, end = divmod(following - 1, CHUNK_ROWS)
    if following == 0:
        return []
    first = max(0, end + 1 - RECENT_MAX) * ID_ROW_BYTES
    rows = _ask("getrange", lambda keys: keys.ids(chunk), first, (end + 1) * ID_ROW_BYTES - 1)
    ids = [rows[start : start + ID_BYTES].hex() for start in range(0, len(rows), ID_ROW_BYTES)]
    return matching(ids[::-1], incomplete)


def platform_of(connection: str) -> str:
    """Returns the platform of a configured connection; nothing if there is no such connection."""
    sections = _settings().get("connections")
    section = sections.get(connection) if isinstance(sections, dict) else None
    in_file = section.get("platform", "") if isinstance(section, dict) else ""
    return os.environ.get(f"EXPORT_CONNECTIONS__{connection.upper()}__PLATFORM", str(in_file))


def _configured(section: str) -> list[str]:
    """Returns the names that the settings file and the environment have in a section."""
    in_file = _settings().get(section)
    variables = filter(None, (_VARIABLE.match(name.upper()) for name in os.environ))
    in_environment = (found[2].lower() for found in variables if found[1] == section.upper())
    return sorted({*(in_file if isinstance(in_file, dict) else ()), *in_environment})


def _announced() -> list[str]:
    return sorted(name.decode() for name in _ask("hkeys", lambda keys: keys.connections))


def _ask(command: str, key: Callable[[Keys], str], *arguments: Any) -> Any:
    """Returns the answer of Redis to one command about a key of the namespace; nothing if Redis does not answer."""
    settings = _settings()
    url = os.environ.get("EXPORT_REDIS_URL") or settings.get("redis_url") or "redis://127.0.0.1:6379/0"
    namespace = os.environ.get("EXPORT_NAMESPACE") or settings.get("namespace") or "exports"
    import redis  # noqa: PLC0415 - takes longer to import than all other completions take

    try:
        options: dict[str, Any] = {"socket_timeout": REDIS_TIMEOUT_S, "socket_connect_timeout": REDIS_TIMEOUT_S}
        with redis.Redis.from_url(url, lib_name=None, lib_version=None, **options) as client:
            full_key = key(Keys(namespace))
            return _at_the_owner(client, lambda: getattr(client, command)(full_key, *arguments))
    except (redis.RedisError, OSError, ValueError, TypeError, AttributeError):
        return []


def _at_the_owner(client: Any, ask: Callable[[], Any]) -> Any:
    """Returns the answer to a question. In a cluster, another node may own the key; the question is repeated there."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 - the client is imported already

    try:
        return ask()
    except ResponseError as error:
        moved = _MOVED.match(str(error))
        if moved is None:
            raise
    pool = client.connection_pool
    pool.disconnect()
    pool.reset()  # the pool would reopen its connection to the first node
    pool.connection_kwargs.update({"host": moved[1] or pool.connection_kwargs["host"], "port": int(moved[2])})
    return ask()


def _settings() -> dict[str, Any]:
    """Returns the content of the settings file; nothing if it cannot be read."""
    import tomllib  # noqa: PLC0415 - only dynamic completions need it

    file = settings_path(os.environ)
    try:
        return {} if file is None else tomllib.loads(settings_text(file))
    except (OSError, ValueError, RecursionError):
        return {}


def matching(names: list[str], incomplete: str) -> list[str]:
    """Returns the names that begin with what was typed."""
    return [name for name in names if name.startswith(incomplete)]
