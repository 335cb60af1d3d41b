"""A worker that cannot use its store: it is not ready, takes no transfer, and resumes once the store is usable."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase, Status
from export_worker.demo.processes import free_port
from export_worker.doctor.workers import check_workers
from export_worker.redis.client import close_redis, open_redis
from export_worker.s3.client import CallLimits, build_client
from export_worker.wiring import storage
from support import s3_server, secret_canaries, worker_site
from support.s3_server import Call, Refusal, S3Proxy
from support.worker_site import Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
TIMEOUT_S = 60.0
"""For a machine under load. On an idle machine each wait takes a few seconds."""


@pytest.fixture
def site(site: Site) -> Site:
    """A site whose exports fail after two failures in a row, and whose workers serve health pages."""
    worker = {"sweep_s": 0.5, "lease_s": 3.0, "drain_s": 2.0, "health_port": free_port()}
    return replace(site, settings={"retry": {"first_s": 0.05, "max_s": 0.3, "max_attempts": 2}, "worker": worker})


@pytest.fixture
def proxy(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """A proxy of S3, for a worker whose client does not retry."""
    monkeypatch.setattr(storage, "build_client", partial(build_client, limits=CallLimits(attempts=1)))
    with s3_server.s3_proxy(s3_url) as proxy:
        yield proxy


async def until_ready(site: Site, *, ready: bool) -> dict[str, str]:
    """Waits until the worker's readiness is as wanted. Returns its problems."""
    url = f"http://127.0.0.1:{site.settings['worker']['health_port']}/readyz"
    async with asyncio.timeout(TIMEOUT_S), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as response:
                    problems: dict[str, str] = (await response.json())["problems"]
                    if (response.status == 200) == ready and "redis" not in problems and problems != NOT_CHECKED:
                        return problems
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


NOT_CHECKED = {"s3": "has not been checked yet"}


@asynccontextmanager
async def waiting_exports(site: Site, count: int = 3) -> AsyncIterator[list[str]]:
    """Enqueues exports, and waits until all of them are transferring. After the block, all of them must succeed."""
    async with site.queue() as queue:
        ids = [(await queue.enqueue(REQUEST)).export_id for _ in range(count)]
        async with asyncio.timeout(TIMEOUT_S):
            while {(await queue.status(export_id)).phase for export_id in ids} != {Phase.TRANSFERRING}:
                await asyncio.sleep(0.02)
        yield ids
        ended = [await queue.wait(export_id, TIMEOUT_S) for export_id in ids]
    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * count, [status.error for status in ended]


async def problem_while(site: Site, count: int = 3) -> str:
    """Returns why the worker cannot use its store, while exports wait for it."""
    problems = await until_ready(site, ready=False)
    assert list(problems) == ["s3"]
    return problems["s3"]


async def test_missing_bucket_is_waited_for(site: Site) -> None:
    absent = replace(site, bucket=f"late-{uuid4().hex[:12]}")
    async with worker_site.worker(absent), waiting_exports(absent):
        assert "NoSuchBucket" in await problem_while(absent)
        assert "claims no transfer of gio: list_objects_v2 on bucket late-" in await reported_by_doctor(absent)
        client = site.s3()
        await asyncio.to_thread(client.create_bucket, Bucket=absent.bucket)
        client.close()
    assert await asyncio.to_thread(absent.open_uploads) == []


async def test_burst_says_which_store_it_waits_for(site: Site) -> None:
    absent = replace(site, bucket=f"late-{uuid4().hex[:12]}", settings={**site.settings, "worker": {"lease_s": 3.0}})
    async with absent.queue() as queue:
        await queue.enqueue(REQUEST)
    with absent.process("run", "--burst") as running:
        await asyncio.to_thread(running.until_logged, "burst.waiting")
        (line,) = [line for line in running.log.read_text(encoding="utf-8").splitlines() if "burst.waiting" in line]
        assert "NoSuchBucket" in line
        client = site.s3()
        await asyncio.to_thread(client.create_bucket, Bucket=absent.bucket)
        client.close()
        assert await asyncio.to_thread(running.process.wait, TIMEOUT_S) == 0


async def reported_by_doctor(site: Site) -> str:
    """Waits until `doctor` warns of a worker, and returns the warning."""
    redis, keys = open_redis(site.redis_url), Keys(site.namespace)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                found = [finding for finding in await check_workers(redis, keys) if finding.level == "warning"]
                if found:
                    return found[0].says
                await asyncio.sleep(0.1)
    finally:
        await close_redis(redis)


async def test_credentials_that_come_late_are_found(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with worker_site.worker(site), waiting_exports(site):
        assert "AWS credentials are missing" in await problem_while(site)
        write_credentials(credentials)
        await until_ready(site, ready=True)


def write_credentials(path: Path) -> None:
    key, secret = secret_canaries.AWS_ACCESS_KEY, secret_canaries.AWS_SECRET_KEY
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n", encoding="ascii")


async def test_credentials_that_are_replaced_are_read_again(
    site: Site, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The key in the credentials file was deleted, and the file gets another one while the worker runs."""
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = AKIAOLD\naws_secret_access_key = old-secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    proxy.rule = lambda call: (
        Refusal(403, "InvalidAccessKeyId") if "AKIAOLD" in call.headers.get("authorization", "") else None
    )
    proxied = replace(site, s3_url=proxy.endpoint_url)
    async with worker_site.worker(proxied), waiting_exports(proxied):
        assert "InvalidAccessKeyId" in await problem_while(proxied)
        write_credentials(credentials)


@pytest.mark.parametrize(("ahead_s", "named"), [(3600.0, "behind"), (-7200.0, "ahead of")])
async def test_skewed_clock_is_named_by_its_seconds(site: Site, proxy: S3Proxy, ahead_s: float, named: str) -> None:
    proxied = replace(site, s3_url=proxy.endpoint_url)
    proxy.clock_ahead_s = ahead_s
    async with worker_site.worker(proxied), waiting_exports(proxied):
        problem = await problem_while(proxied)
        assert f"s {named} the clock of S3" in problem
        seconds = int(problem.partition(f" s {named}")[0].rpartition(" ")[2])
        assert abs(seconds - abs(ahead_s)) < 30
        proxy.clock_ahead_s = 0.0


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "ExpiredToken"), (400, "ExpiredToken"), (403, "SignatureDoesNotMatch"), (503, "ServiceUnavailable")],
)
async def test_head_without_a_body_uses_no_attempt_while_the_store_refuses_everything(
    site: Site, proxy: S3Proxy, status: int, code: str
) -> None:
    """The trouble begins while an export runs. A response to HEAD has no body, so it does not name the reason."""
    proxied, refused = replace(site, s3_url=proxy.endpoint_url), asyncio.Event()
    loop = asyncio.get_running_loop()

    def rule(call: Call) -> Refusal | None:
        if call.name == "put_object" and not refused.is_set():
            return Refusal(412, "PreconditionFailed")
        if call.name == "head_object":
            loop.call_soon_threadsafe(refused.set)
        return Refusal(status, code) if refused.is_set() or call.name == "head_object" else None

    async with worker_site.worker(proxied):
        await until_ready(proxied, ready=True)
        proxy.rule = rule
        async with waiting_exports(proxied):
            await asyncio.wait_for(refused.wait(), TIMEOUT_S)
            assert code in await problem_while(proxied)
            proxy.reset()


async def test_worker_without_any_rights_waits_for_them(site: Site, proxy: S3Proxy) -> None:
    """The store does not allow the check either, so only a transfer shows that the rights are there."""
    proxied = replace(site, s3_url=proxy.endpoint_url)
    proxy.rule = lambda _: Refusal(403, "AccessDenied")
    async with worker_site.worker(proxied), waiting_exports(proxied):
        assert "AccessDenied" in await problem_while(proxied)
        proxy.reset()


async def test_worker_that_may_not_list_objects_is_ready(site: Site, proxy: S3Proxy) -> None:
    proxied = replace(site, s3_url=proxy.endpoint_url)
    proxy.rule = lambda call: Refusal(403, "AccessDenied") if call.is_check else None
    async with worker_site.worker(proxied):
        await until_ready(proxied, ready=True)
        assert (await worker_site.export(proxied, REQUEST)).phase is Phase.SUCCEEDED


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (400, "KeyTooLongError")])
async def test_refusal_of_a_single_export_fails_it_and_leaves_the_worker_ready(
    site: Site, proxy: S3Proxy, status: int, code: str
) -> None:
    proxied = replace(site, s3_url=proxy.endpoint_url)
    proxy.rule = lambda call: Refusal(status, code) if call.name == "put_object" else None
    async with worker_site.worker(proxied):
        ended = await worker_site.export(proxied, REQUEST)
        assert ended.phase is Phase.FAILED
        assert ended.error is not None
        assert code in ended.error.message
        proxy.reset()
        assert (await worker_site.export(proxied, REQUEST)).phase is Phase.SUCCEEDED


async def test_last_refusal_of_an_outage_does_not_fail_its_export(site: Site, proxy: S3Proxy) -> None:
    proxied, refusals = replace(site, s3_url=proxy.endpoint_url), [Refusal(403, "RequestTimeTooSkewed")]
    proxy.rule = lambda call: refusals.pop() if call.name == "put_object" and refusals else None
    async with worker_site.worker(proxied):
        ended = await worker_site.export(proxied, REQUEST)
    assert (ended.phase, refusals) == (Phase.SUCCEEDED, [])


async def test_failures_of_a_store_whose_check_succeeds_use_attempts(site: Site, proxy: S3Proxy) -> None:
    proxied = replace(site, s3_url=proxy.endpoint_url)
    proxy.rule = lambda call: Refusal(503, "SlowDown") if call.name == "put_object" else None
    async with worker_site.worker(proxied):
        ended = await worker_site.export(proxied, REQUEST)
    assert (ended.phase, ended.counters.retries) == (Phase.FAILED, 1)


async def test_worker_with_a_wrong_bucket_takes_no_export_of_a_healthy_worker(site: Site) -> None:
    wrong = replace(site, bucket=f"wrong-{uuid4().hex[:12]}")
    healthy = replace(site, settings={**site.settings, "worker": {**site.settings["worker"], "health_port": None}})
    async with worker_site.worker(wrong, beside=[healthy]), site.queue() as queue:
        ids = [(await queue.enqueue(REQUEST)).export_id for _ in range(20)]
        ended: list[Status] = [await queue.wait(export_id, TIMEOUT_S) for export_id in ids]
        assert "NoSuchBucket" in await problem_while(wrong)
    assert {status.phase for status in ended} == {Phase.SUCCEEDED}
    assert {item.bucket for status in ended for item in status.objects} == {site.bucket}
    assert sum(status.counters.retries for status in ended) == 0


async def test_connection_with_a_usable_store_is_served_beside_one_without(site: Site) -> None:
    """The IAM role of one connection cannot be assumed; the other connection has the store of `[s3]`."""
    gio = site.tree()["connections"]["gio"]
    role = {"role_arn": "arn:aws:iam::123456789012:role/exports", "sts_endpoint_url": "http://127.0.0.1:9"}
    connections = {"gio": gio, "other": gio | {"s3": role}}
    both = replace(site, settings=site.settings | {"connections": connections})
    request: dict[str, Any] = json.loads(REQUEST)
    async with worker_site.worker(both), both.queue() as queue:
        stuck = await queue.enqueue(json.dumps(request | {"connection": "other"}))
        assert (await worker_site.export(both, REQUEST)).phase is Phase.SUCCEEDED
        problems = await until_ready(both, ready=False)
        assert list(problems) == ["connections.other.s3"]
        assert (await queue.status(stuck.export_id)).phase is not Phase.FAILED
