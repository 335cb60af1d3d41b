"""Connections that store in ways of their own, through a real worker and through `doctor`."""

import asyncio
import json
from typing import Any
from uuid import uuid4

from export_worker.contract.status import Phase
from support import secret_canaries, worker_site
from support.worker_site import Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
ROLE = "arn:aws:iam::123456789012:role/exports"


def two_ways(site: Site) -> None:
    """`gio` as `[s3]` says, `other` with a class and a role of its own."""
    gio = site.tree()["connections"]["gio"]
    own = {"storage_class": "ONEZONE_IA", "role_arn": ROLE, "sts_endpoint_url": site.s3_url}
    site.settings = {
        "s3": {"bucket": site.bucket, "endpoint_url": site.s3_url, "tags": {"team": "data"}},
        "connections": {"gio": gio, "other": gio | {"s3": own}},
    }


async def doctor(site: Site) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Its exit status, and the findings by what was looked at."""
    connections = json.dumps(site.settings["connections"])
    ran = await asyncio.to_thread(site.command, "doctor", "--json", EXPORT_CONNECTIONS=connections)
    secret_canaries.check("the report", (ran.stdout + ran.stderr).encode())
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(ran.stdout)["findings"]:
        found.setdefault(finding["about"], []).append(finding)
    return ran.status, found


async def test_each_connection_stores_in_its_own_way(site: Site) -> None:
    two_ways(site)
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


async def test_doctor_tries_each_way(site: Site) -> None:
    two_ways(site)
    status, found = await doctor(site)
    assert status == 0, found
    assert [finding["says"] for finding in found["connections.other.s3"]] == [
        finding["says"] for finding in found["s3"]
    ]


async def test_doctor_tells_of_a_role_that_is_not_given(site: Site) -> None:
    two_ways(site)
    site.settings["connections"]["other"]["s3"]["sts_endpoint_url"] = "http://127.0.0.1:9"
    status, found = await doctor(site)
    assert status == 4
    assert found["connections.other.s3"][0]["level"] == "error"
    assert "cannot be reached" in found["connections.other.s3"][0]["says"]


async def test_a_worker_aborts_what_was_left_long_ago(site: Site) -> None:
    client = site.s3()
    key = f"growingio.segment_users/dt=2026-11-22/{uuid4().hex}/a.csv"
    client.create_multipart_upload(Bucket=site.bucket, Key=key)
    client.close()
    async with worker_site.worker(site):
        async with asyncio.timeout(30):
            while await asyncio.to_thread(site.open_uploads):
                await asyncio.sleep(0.05)
