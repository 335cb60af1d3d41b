"""Reports the circuit breakers that are open: which calls workers hold back now."""

from collections.abc import Sequence
from datetime import UTC, datetime

from arq.connections import ArqRedis
from redis.exceptions import RedisError

from export_worker.contract.model import isoformat
from export_worker.contract.redis_keys import Keys
from export_worker.doctor.finding import Finding, unreachable, warning
from export_worker.redis.client import commands
from export_worker.telemetry.queue_stats import BREAKERS

_FIX = "read the last error of such an export: export-worker list, then export-worker explain ID"


async def check_breakers(redis: ArqRedis, keys: Keys, connections: Sequence[str]) -> list[Finding]:
    """Reports every open circuit breaker of these connections."""
    client, found = commands(redis), []
    try:
        for connection in connections:
            for name, kind in BREAKERS.items():
                until_ms, failures = await client.hmget(keys.breaker(connection, kind), "until", "failures")
                if until_ms is not None:
                    until = isoformat(datetime.fromtimestamp(int(until_ms) / 1000, UTC))
                    found.append(_finding(connection, name, until, int(failures or 0)))
    except (RedisError, OSError) as error:
        return [unreachable("breakers", f"they cannot be read ({error})", "see the findings about redis")]
    return found


def _finding(connection: str, name: str, until: str, failures: int) -> Finding:
    if name == "platform":
        fix = f"see the finding about connection {connection}; exports resume when the platform answers"
        return warning(f"breaker of {connection}", f"submits and polls: paused until {until}, platform is down", fix)
    says = f"{name}s: those that have failed are paused until {until}, after {failures} exports without a success"
    return warning(f"breaker of {connection}", says, _FIX)
