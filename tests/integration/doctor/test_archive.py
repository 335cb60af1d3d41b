"""Doctor reports an archive that does not keep up, and why."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from export_worker.contract.model import isoformat
from export_worker.contract.redis_keys import Keys
from export_worker.doctor.archive import check_archive
from export_worker.telemetry.queue_stats import QueueStats


async def lag_in_metrics(redis: Any, keys: Keys) -> float | None:
    """Returns the lag as the metrics have it."""
    return (await QueueStats(redis, keys, [], [], _no_progress).read(datetime.now(UTC))).archive_lag_s


async def _no_progress(_: int) -> list[str]:
    return []


@pytest.mark.parametrize(
    ("lag_s", "problem", "level", "text"),
    [
        (3900, "", "ok", "has every export that ended before"),
        (3900, "put_object on bucket b: SlowDown", "ok", "has every export that ended before"),
        (4 * 3600, "put_object on bucket b: AccessDenied", "error", "AccessDenied"),
        (4 * 3600, "", "error", "no worker archives"),
    ],
)
async def test_archive_is_late_after_three_hours(
    arq_redis: Any, namespace: str, lag_s: float, problem: str, level: str, text: str
) -> None:
    keys, now = Keys(namespace), datetime.now(UTC)
    until = isoformat(now - timedelta(seconds=lag_s))
    fields = {"uri": "s3://b/history/", "until": until, "retention_s": "86400", "problem": problem}
    await arq_redis.hset(keys.archive, mapping=fields)
    (finding,) = await check_archive(arq_redis, keys)
    assert finding.level == level
    assert text in finding.says
    assert await lag_in_metrics(arq_redis, keys) == pytest.approx(lag_s, abs=60)


async def test_archive_without_a_worker_is_a_warning(arq_redis: Any, namespace: str) -> None:
    (finding,) = await check_archive(arq_redis, Keys(namespace))
    assert finding.level == "warning"
    assert await lag_in_metrics(arq_redis, Keys(namespace)) is None
