"""Files of an earlier attempt that the platform names otherwise now are removed before `_SUCCESS` is written."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from export_producers.records import Start
from export_worker.contract.status import Phase
from export_worker.lifecycle.decisions import Policy
from export_worker.lifecycle.observations import Polled, Ready, RemoteFile
from support.redis_site import POLICY
from support.s3_server import Call, Lost, Refusal, S3Proxy, file_names
from support.scripted_worker import Parts, export_writer, run_due


def complete(*names: str) -> list[str]:
    """Returns the names of all objects of an export that has succeeded with these files."""
    return sorted(["_SUCCESS", "_manifest.json", *names])


def named(*polls: Sequence[str]) -> Callable[[int], Polled]:
    """Returns a platform that has these files at the first poll, those at the second, and so on."""

    def see(number: int) -> Polled:
        return Ready("FINISH", tuple(RemoteFile(f"/{number}/{name}", name) for name in polls[number - 1]))

    return see


async def exported(parts: Parts) -> str:
    """Returns an export whose steps have run as far as they could."""
    export_id = await parts.site.enqueue()
    await run_due(parts)
    return export_id


async def retried(parts: Parts, export_id: str, start: Start = "submit") -> Phase:
    """Retries an export by hand, runs its steps and returns its phase."""
    await parts.site.queue.retry(export_id, start)
    parts.site.catch_up()
    await run_due(parts)
    return (await parts.site.queue.status(export_id)).phase


def listed(client: Any, bucket: str, export_id: str) -> list[str]:
    """Returns the names in the manifest."""
    body = client.get_object(Bucket=bucket, Key=f"gio/{export_id}/_manifest.json")["Body"].read()
    return [item["file_name"] for item in json.loads(body)["objects"]]


@pytest.mark.parametrize("start", ["submit", "poll", "transfer"])
async def test_retry_removes_file_that_has_another_name_now(
    parts: Parts, client: Any, own_bucket: str, start: Start
) -> None:
    parts.driver.see = named(["old.csv", "same.csv"], ["new.csv", "same.csv"])
    export_id = await exported(parts)
    assert file_names(client, own_bucket) == complete("old.csv", "same.csv")
    assert await retried(parts, export_id, start) is Phase.SUCCEEDED
    assert file_names(client, own_bucket) == complete("new.csv", "same.csv")
    assert listed(client, own_bucket, export_id) == ["new.csv", "same.csv"]


async def test_retry_removes_file_that_was_stored_but_never_saved(
    parts: Parts, proxy: S3Proxy, client: Any, own_bucket: str
) -> None:
    """The response to the second file is lost, so its key is in no record."""
    parts.driver.see = named(["a.csv", "b.csv"], ["c.csv"])
    policy = Policy(POLICY.poll, POLICY.retry, max_attempts=1, deadline_s=POLICY.deadline_s)
    once = Parts(parts.site, parts.driver, parts.clock, parts.writer, policy)
    proxy.rule = lambda call: Lost() if call.name == "put_object" and call.path.endswith("/b.csv") else None
    export_id = await exported(once)
    proxy.reset()
    assert file_names(client, own_bucket) == ["a.csv", "b.csv"]
    assert await retried(parts, export_id) is Phase.SUCCEEDED
    assert file_names(client, own_bucket) == complete("c.csv")


async def test_earlier_names_survive_a_retry_that_fails_before_its_transfer(
    parts: Parts, client: Any, own_bucket: str
) -> None:
    parts.driver.see = named(["old.csv"], [], ["new.csv"])
    export_id = await exported(parts)
    await parts.site.queue.retry(export_id, "submit")
    await parts.site.cancel(export_id)
    await run_due(parts)
    parts.driver.polls = 2
    assert await retried(parts, export_id) is Phase.SUCCEEDED
    assert file_names(client, own_bucket) == complete("new.csv")


async def test_platform_that_renames_files_after_one_was_missing_leaves_no_earlier_file(
    parts: Parts, client: Any, own_bucket: str
) -> None:
    """No retry by hand: the platform is polled for the new address of the missing file."""
    parts.driver.see = named(["a.csv", "b.csv"], ["c.csv", "d.csv"])
    parts.driver.missing = {"b.csv"}
    await exported(parts)
    assert file_names(client, own_bucket) == complete("c.csv", "d.csv")


async def test_export_is_not_sealed_before_earlier_files_are_removed(
    parts: Parts, proxy: S3Proxy, client: Any, own_bucket: str
) -> None:
    parts.driver.see = named(["old.csv"], ["new.csv"])
    export_id = await exported(parts)

    def rule(call: Call) -> Refusal | None:
        removes = call.name == "delete_object" and call.path.endswith("/old.csv")
        return Refusal(403, "AccessDenied") if removes else None

    proxy.rule = rule
    assert await retried(parts, export_id) is Phase.FAILED
    assert file_names(client, own_bucket) == ["new.csv", "old.csv"]
    proxy.reset()
    assert await retried(parts, export_id, "transfer") is Phase.SUCCEEDED
    assert file_names(client, own_bucket) == complete("new.csv")


async def test_object_of_another_export_is_kept(parts: Parts, client: Any, own_bucket: str) -> None:
    parts.driver.see = named(["old.csv"], ["new.csv"])
    export_id = await exported(parts)
    client.put_object(Bucket=own_bucket, Key=f"gio/{export_id}/old.csv", Body=b"", Metadata={"export-id": "another"})
    assert await retried(parts, export_id) is Phase.SUCCEEDED
    assert file_names(client, own_bucket) == complete("new.csv", "old.csv")


async def test_files_below_an_earlier_prefix_are_kept_with_their_own_success_marker(
    parts: Parts, proxy: S3Proxy, client: Any, own_bucket: str
) -> None:
    parts.driver.see = named(["old.csv"], ["new.csv"])
    export_id = await exported(parts)
    with export_writer(proxy.endpoint_url, own_bucket, template="moved/{export_id}/{file_name}") as writer:
        assert await retried(Parts(parts.site, parts.driver, parts.clock, writer), export_id) is Phase.SUCCEEDED
    assert file_names(client, own_bucket) == sorted(complete("old.csv") + complete("new.csv"))
