"""An export whose bucket or key template is changed between two attempts has all its files in the new folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from export_worker.contract.status import Phase
from export_worker.lifecycle.decisions import Policy
from export_worker.lifecycle.observations import Polled, Ready, RemoteFile
from export_worker.redis.file_lists import INLINE_FILES_MAX
from support import s3_server
from support.redis_site import POLICY
from support.s3_server import Call, Refusal, S3Proxy, file_names
from support.scripted_worker import Parts, export_writer, run_due

ONE_ATTEMPT = Policy(POLICY.poll, POLICY.retry, max_attempts=1, deadline_s=POLICY.deadline_s)


def see_files(count: int) -> Any:
    """Returns a platform whose operation has finished with so many files."""

    def see(_: int) -> Polled:
        return Ready("FINISH", tuple(RemoteFile(f"/{number}", f"{number:03}.csv") for number in range(count)))

    return see


async def fail_at_last_file(parts: Parts, proxy: S3Proxy, count: int) -> tuple[Parts, str]:
    """Returns an export that has failed because S3 refused its last file, and the worker that ran it."""
    parts.driver.see = see_files(count)
    once = Parts(parts.site, parts.driver, parts.clock, parts.writer, ONE_ATTEMPT)
    last = f"/{count - 1:03}.csv"

    def rule(call: Call) -> Refusal | None:
        return Refusal(403, "AccessDenied") if call.name == "put_object" and call.path.endswith(last) else None

    proxy.rule = rule
    export_id = await parts.site.enqueue()
    await run_due(once)
    assert (await parts.site.queue.status(export_id)).phase is Phase.FAILED
    proxy.reset()
    return once, export_id


@contextmanager
def moved(parts: Parts, endpoint_url: str, bucket: str, **settings: Any) -> Iterator[Parts]:
    """Yields a worker with another bucket or key template."""
    with export_writer(endpoint_url, bucket, **settings) as writer:
        yield Parts(parts.site, parts.driver, parts.clock, writer, ONE_ATTEMPT)


@pytest.mark.parametrize("count", [3, INLINE_FILES_MAX + 3])
@pytest.mark.parametrize("what", ["bucket", "template"])
async def test_files_are_stored_again_where_the_manifest_and_success_are(
    parts: Parts, proxy: S3Proxy, client: Any, own_bucket: str, what: str, count: int
) -> None:
    once, export_id = await fail_at_last_file(parts, proxy, count)
    bucket = s3_server.new_bucket(client) if what == "bucket" else own_bucket
    settings = {} if what == "bucket" else {"template": "moved/{export_id}/{file_name}"}
    with moved(once, proxy.endpoint_url, bucket, **settings) as worker:
        await parts.site.queue.retry(export_id, "transfer")
        parts.site.catch_up()
        await run_due(worker)

    status = await parts.site.queue.status(export_id)
    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.manifest is not None
    folder = status.manifest.removesuffix("_manifest.json")
    names = [f"{number:03}.csv" for number in range(count)]
    assert [item.uri for item in status.objects] == [folder + name for name in names]
    prefix = folder.removeprefix(f"s3://{bucket}/")
    listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    assert sorted(item["Key"] for item in listed) == sorted(
        prefix + name for name in ["_SUCCESS", "_manifest.json", *names]
    )
    manifest = json.loads(client.get_object(Bucket=bucket, Key=f"{prefix}_manifest.json")["Body"].read())
    assert [item["file_name"] for item in manifest["objects"]] == names
    timeline = await parts.site.queue.timeline(export_id)
    assert sum(f"{count - 1} file(s) are stored under other keys" in (entry["note"] or "") for entry in timeline) == 1
    if what == "bucket":
        assert file_names(client, own_bucket) == names[:-1]


async def test_stored_file_that_has_the_new_name_of_the_manifest_gets_another_name(
    parts: Parts, proxy: S3Proxy, client: Any, own_bucket: str
) -> None:
    once, export_id = await fail_at_last_file(parts, proxy, 2)
    with moved(once, proxy.endpoint_url, own_bucket, manifest_name="000.csv") as worker:
        await parts.site.queue.retry(export_id, "transfer")
        parts.site.catch_up()
        await run_due(worker)

    status = await parts.site.queue.status(export_id)
    assert status.phase is Phase.SUCCEEDED, status.error
    assert file_names(client, own_bucket) == ["000-2.csv", "000.csv", "001.csv", "_SUCCESS"]
    assert [item.file_name for item in status.objects] == ["000-2.csv", "001.csv"]
    assert status.manifest is not None
    manifest = client.get_object(Bucket=own_bucket, Key=status.manifest.removeprefix(f"s3://{own_bucket}/"))
    assert [item["file_name"] for item in json.loads(manifest["Body"].read())["objects"]] == ["000-2.csv", "001.csv"]


async def test_stored_files_are_kept_if_nothing_has_changed(parts: Parts, proxy: S3Proxy) -> None:
    once, export_id = await fail_at_last_file(parts, proxy, 3)
    before = len(proxy.calls)
    await parts.site.queue.retry(export_id, "transfer")
    parts.site.catch_up()
    await run_due(once)
    assert (await parts.site.queue.status(export_id)).phase is Phase.SUCCEEDED
    stored = [call.path.rpartition("/")[2] for call in proxy.calls[before:] if call.name == "put_object"]
    assert stored == ["002.csv", "_manifest.json", "_SUCCESS"]
