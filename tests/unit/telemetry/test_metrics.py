"""The metrics of each kind of process: valid names and help texts, and a bounded number of series."""

import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from export_producers.gateway.metrics import Metrics as GatewayMetrics
from export_producers.triggers.metrics import TriggerPages
from export_producers.triggers.redis_stream import ConsumerGroup
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.redis.client import close_redis, open_redis
from export_worker.telemetry.instrumentation import Detail, ExportEnded, StepTaken
from export_worker.telemetry.metrics import Metrics

PROMTOOL = shutil.which("promtool")


def ended(connection: str) -> Iterator[Detail]:
    kind, code = "growingio.segment_users", "unknown_connection"
    yield StepTaken("id", connection, kind, "control", "", 1, Phase.QUEUED, Phase.QUEUED, 0.1, code, retries=True)
    yield ExportEnded(connection, kind, Phase.FAILED, code, polls=0, duration_s=1.0)


async def connections(metrics: Metrics) -> set[str]:
    families = text_string_to_metric_families((await metrics.text(None)).decode())
    return {sample.labels.get("connection", "") for family in families for sample in family.samples} - {""}


async def test_unknown_connections_share_one_label() -> None:
    metrics = Metrics(["gio"])
    for name in ("gio", *(f"made-up-{number}" for number in range(50))):
        for detail in ended(name):
            metrics.on(detail)
    assert await connections(metrics) == {"gio", "other"}


async def worker() -> bytes:
    metrics = Metrics(["gio"], ["stream"])
    for detail in ended("gio"):
        metrics.on(detail)
    return await metrics.text(None)


async def gateway() -> bytes:
    metrics = GatewayMetrics()
    metrics.served("GET", "/healthz", 200, 0.1, stream=False)
    body = (await metrics.response(redis_up=True)).body
    assert isinstance(body, bytes)
    return body


async def trigger() -> bytes:
    client = open_redis("redis://127.0.0.1:1/0", retries=0)
    text = await TriggerPages("t", client, Keys("exports"), ConsumerGroup("s", "g")).metrics()
    await close_redis(client)
    return text


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("process", [worker, gateway, trigger])
async def test_promtool_accepts_names_and_help_texts(process: Callable[[], Awaitable[bytes]]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=await process(), capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
