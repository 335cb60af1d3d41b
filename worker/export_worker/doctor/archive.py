"""Checks the archive of ended exports: whether it keeps up with what ends."""

from datetime import UTC, datetime
from importlib.util import find_spec

from arq.connections import ArqRedis
from redis.exceptions import RedisError

from export_worker.contract.archive_state import LAG_MAX_S, ArchiveState
from export_worker.contract.extras import how_to_install
from export_worker.contract.model import isoformat
from export_worker.contract.redis_keys import Keys
from export_worker.doctor.finding import Finding, good, unreachable, warning, wrong
from export_worker.redis.client import commands

ABOUT = "archive"


async def check_archive(redis: ArqRedis, keys: Keys) -> list[Finding]:
    """Reports how far the archive is. Only for a configuration with an archive."""
    try:
        state = ArchiveState.read(await commands(redis).hgetall(keys.archive))
    except (RedisError, OSError) as error:
        return [unreachable(ABOUT, f"its state cannot be read ({error})", "see the findings about redis")]
    found = [_state_finding(state, datetime.now(UTC))]
    if find_spec("pyarrow") is None:
        advice = f"transfer workers need it: {how_to_install('parquet')}"
        found.append(warning(ABOUT, "pyarrow is not installed here", advice))
    return found


def _state_finding(state: ArchiveState | None, now: datetime) -> Finding:
    if state is None:
        return warning(ABOUT, "no worker has archived anything yet", "start one: export-worker run --role transfer")
    if state.lag_s(now) > LAG_MAX_S:
        until = isoformat(state.until)
        if state.problem:
            fix = "fix this before Redis forgets the exports: worker.retention_s after their end"
            return wrong(ABOUT, f"has nothing that ended after {until}: {state.problem}", fix)
        fix = "start a worker with the setting worker.archive: export-worker run --role transfer"
        return wrong(ABOUT, f"has nothing that ended after {until}, and no worker archives", fix)
    return good(ABOUT, f"{state.uri} has every export that ended before {isoformat(state.until)}")
