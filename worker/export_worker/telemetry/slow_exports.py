"""Finds exports that run on their platform for much longer than the last ones of their kind.

A deadline ends an export that is never ready, but only after hours. For their poll schedules, workers keep how long the
last operations of each kind took on each connection. The same durations show that an open export is slow.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from export_worker.contract.redis_keys import Keys
from export_worker.contract.slowness import SLOW_MIN_S, in_seconds, is_slow

RUNNING_MAX = 100
"""Exports of one connection that are examined, those that run for the longest time first."""


@dataclass(frozen=True, slots=True)
class RunningExport:
    """An export that is on its platform.

    Args:
        connection: Its connection.
        export_id: Its id.
        running_s: Seconds since it received its slot, which is when it was submitted.
    """

    connection: str
    export_id: str
    running_s: float


def running_exports(connection: str, slots: Sequence[tuple[bytes, float]], now_ms: int) -> list[RunningExport]:
    """Returns the exports of one connection's slots that can be slow."""
    since = ((export_id.decode(), (now_ms - taken_ms) / 1000) for export_id, taken_ms in slots)
    return [RunningExport(connection, export_id, age_s) for export_id, age_s in since if age_s > SLOW_MIN_S]


async def slow_exports(redis: Any, keys: Keys, running: Sequence[RunningExport]) -> dict[tuple[str, str], int]:
    """Returns the number of slow exports by connection and kind. Raises the errors of redis-py."""
    if not running:
        return {}
    async with redis.pipeline(transaction=False) as pipe:
        for export in running:
            pipe.hget(keys.export(export.export_id), "kind")
        kinds = await pipe.execute()
    operations = [
        (each.connection, kind.decode(), each.running_s) for each, kind in zip(running, kinds, strict=True) if kind
    ]
    names = sorted({(connection, kind) for connection, kind, _ in operations})
    async with redis.pipeline(transaction=False) as pipe:
        for connection, kind in names:
            pipe.lrange(keys.durations(connection, kind), 0, -1)
        stored = dict(zip(names, await pipe.execute(), strict=True))
    durations_s = {name: in_seconds(found) for name, found in stored.items()}
    slow = Counter((name, kind) for name, kind, running_s in operations if is_slow(running_s, durations_s[name, kind]))
    return {name: slow[name] for name in names}
