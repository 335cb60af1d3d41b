"""Connections with their own storage settings, in a real worker and in `doctor`."""

import asyncio
import json
from dataclasses import replace
from typing import Any
from uuid import uuid4

from export_worker.contract.status import Phase
from support import s3_server, secret_canaries, worker_site
from support.worker_site import Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
ROLE_ARN = "arn:aws:iam::123456789012:role/exports"


def configure_two_connections(site: Site) -> None:
    """Configures `gio` with the settings of `[s3]`, and `other` with its own storage class and IAM role."""
    gio = site.tree()["connections"]["gio"]
    own = {"storage_class": "ONEZONE_IA", "role_arn": ROLE_ARN, "sts_endpoint_url": site.s3_url}
    site.settings = {
        "s3": {"bucket": site.bucket, "endpoint_url": site.s3_url, "tags": {"team": "data"}},
        "connections": {"gio": gio, "other": gio | {"s3": own}},
    }


async def doctor(site: Site) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Runs `doctor --json`. Returns its exit status, and the findings by what they are about."""
    connections = json.dumps(site.settings["connections"])
    ran = await asyncio.to_thread(site.command, "doctor", "--json", EXPORT_CONNECTIONS=connections)
    secret_canaries.check("the report", (ran.stdout + ran.stderr).encode())
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(ran.stdout)["findings"]:
        found.setdefault(finding["about"], []).append(finding)
    return ran.status, found


async def test_each_connection_stores_with_its_own_settings(site: Site) -> None:
    configure_two_connections(site)
    classes = {}
    async with worker_site.worker(site):
        for connection in ("gio", "other"):
            status = await worker_site.export(site, json.dumps({"connection": connection, "export": SEGMENT}))
            assert status.phase is Phase.SUCCEEDED, status.error
            client = site.s3()
            key = status.objects[0].key
            classes[connection] = client.head_object(Bucket=site.bucket, Key=key).get("StorageClass")
            tags = client.get_object_tagging(Bucket=site.bucket, Key=key)["TagSet"]
            assert tags == [{"Key": "team", "Value": "data"}]
            client.close()
    assert classes == {"gio": None, "other": "ONEZONE_IA"}


async def test_doctor_checks_the_storage_settings_of_each_connection(site: Site) -> None:
    configure_two_connections(site)
    status, found = await doctor(site)
    assert status == 0, found
    assert [finding["says"] for finding in found["connections.other.s3"]] == [
        finding["says"] for finding in found["s3"]
    ]


async def test_doctor_reports_a_role_that_cannot_be_assumed(site: Site) -> None:
    configure_two_connections(site)
    site.settings["connections"]["other"]["s3"]["sts_endpoint_url"] = "http://127.0.0.1:9"
    status, found = await doctor(site)
    assert status == 4
    assert found["connections.other.s3"][0]["level"] == "error"
    assert "cannot be reached" in found["connections.other.s3"][0]["says"]


async def configure_own_bucket(site: Site, **own: Any) -> str:
    """Configures `gio` with the bucket and prefix of `[s3]`, and `other` with its own bucket. Returns its name."""
    client = site.s3()
    bucket = await asyncio.to_thread(s3_server.new_bucket, client)
    client.close()
    gio = site.tree()["connections"]["gio"]
    site.settings = {
        "s3": {"bucket": site.bucket, "endpoint_url": site.s3_url, "prefix": "landing/"},
        "connections": {"gio": gio, "other": gio | {"s3": {"bucket": bucket, **own}}},
    }
    return bucket


async def test_connection_has_its_own_bucket_and_prefix(site: Site) -> None:
    bucket = await configure_own_bucket(site, prefix="ads/")
    connections = site.settings["connections"]
    connections["without"] = connections["gio"] | {"s3": {"prefix": ""}}
    connections["inherited"] = connections["gio"] | {"s3": {"bucket": bucket}}
    expected = {
        "gio": f"s3://{site.bucket}/landing/",
        "other": f"s3://{bucket}/ads/",
        "without": f"s3://{site.bucket}/",
        "inherited": f"s3://{bucket}/landing/",
    }
    async with worker_site.worker(site):
        for connection, start in expected.items():
            status = await worker_site.export(site, json.dumps({"connection": connection, "export": SEGMENT}))
            assert status.phase is Phase.SUCCEEDED, status.error
            folder = f"{start}{status.kind}/dt={status.created_at.date().isoformat()}/{status.export_id}/"
            assert status.manifest == f"{folder}_manifest.json"
            assert [item.uri for item in status.objects] == [folder + item.file_name for item in status.objects]
            objects = replace(site, bucket=status.objects[0].bucket).objects()
            names = [*(item.file_name for item in status.objects), "_manifest.json", "_SUCCESS"]
            stored = [f"s3://{status.objects[0].bucket}/{key}" for key in objects if status.export_id in key]
            assert sorted(stored) == sorted(folder + name for name in names)


async def test_doctor_checks_the_bucket_of_each_connection(site: Site) -> None:
    await configure_own_bucket(site)
    site.settings["connections"]["other"]["s3"]["bucket"] = "no-such-bucket"
    status, found = await doctor(site)
    assert (status, found["s3"][0]["level"]) == (2, "ok")
    assert site.bucket in found["s3"][0]["says"]
    assert "no-such-bucket" in found["connections.other.s3"][0]["says"]


async def test_missing_bucket_of_one_connection_does_not_stop_the_others(site: Site) -> None:
    await configure_own_bucket(site, prefix="ads/")
    own = site.settings["connections"]["other"]["s3"]
    own["bucket"] = f"later-{uuid4().hex}"
    async with worker_site.worker(site), site.queue() as queue:
        other = await queue.enqueue(json.dumps({"connection": "other", "export": SEGMENT}))
        status = await worker_site.export(site, json.dumps({"connection": "gio", "export": SEGMENT}))
        assert status.phase is Phase.SUCCEEDED, status.error
        client = site.s3()
        await asyncio.to_thread(client.create_bucket, Bucket=own["bucket"])
        client.close()
        status = await queue.wait(other.export_id, 30)
    assert status.phase is Phase.SUCCEEDED, status.error
    assert {item.bucket for item in status.objects} == {own["bucket"]}


async def test_worker_aborts_an_old_upload_in_the_bucket_of_a_connection(site: Site) -> None:
    bucket = await configure_own_bucket(site, prefix="ads/")
    client = site.s3()
    key = f"growingio.segment_users/dt=2026-11-22/{uuid4().hex}/a.csv"
    for owner, prefix in ((bucket, "ads/"), (bucket, "landing/"), (site.bucket, "landing/")):
        client.create_multipart_upload(Bucket=owner, Key=prefix + key)
    client.close()
    other = replace(site, bucket=bucket)
    async with worker_site.worker(site):
        async with asyncio.timeout(30):
            while await asyncio.to_thread(site.open_uploads) or len(await asyncio.to_thread(other.open_uploads)) > 1:
                await asyncio.sleep(0.05)
    assert [upload["Key"] for upload in other.open_uploads()] == [f"landing/{key}"]


async def test_worker_aborts_an_old_upload_of_an_unknown_export(site: Site) -> None:
    client = site.s3()
    key = f"growingio.segment_users/dt=2026-11-22/{uuid4().hex}/a.csv"
    client.create_multipart_upload(Bucket=site.bucket, Key=key)
    client.close()
    async with worker_site.worker(site):
        async with asyncio.timeout(30):
            while await asyncio.to_thread(site.open_uploads):
                await asyncio.sleep(0.05)
