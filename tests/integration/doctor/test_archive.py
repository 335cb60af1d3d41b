"""Doctor reports an archive that does not keep up, and why."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from export_worker.contract.model import isoformat
from export_worker.contract.redis_keys import Keys
from export_worker.doctor.archive import check_archive
from export_worker.redis.transfers import TransferProgress
from export_worker.telemetry.queue_stats import QueueStats


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
    snapshot = await QueueStats(arq_redis, keys, [], [], TransferProgress(arq_redis, keys).read).read(now)
    assert snapshot.archive_lag_s == pytest.approx(lag_s, abs=1)


async def test_archive_without_a_worker_is_a_warning(arq_redis: Any, namespace: str) -> None:
    keys = Keys(namespace)
    (finding,) = await check_archive(arq_redis, keys)
    assert finding.level == "warning"
    stats = QueueStats(arq_redis, keys, [], [], TransferProgress(arq_redis, keys).read)
    assert (await stats.read(datetime.now(UTC))).archive_lag_s is None
