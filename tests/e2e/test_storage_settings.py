"""Connections with their own storage settings, in a real worker and in `doctor`."""

import asyncio
import json
from typing import Any
from uuid import uuid4

from export_worker.contract.status import Phase
from support import secret_canaries, worker_site
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


async def test_worker_aborts_an_old_upload_of_an_unknown_export(site: Site) -> None:
    client = site.s3()
    key = f"growingio.segment_users/dt=2026-11-22/{uuid4().hex}/a.csv"
    client.create_multipart_upload(Bucket=site.bucket, Key=key)
    client.close()
    async with worker_site.worker(site):
        async with asyncio.timeout(30):
            while await asyncio.to_thread(site.open_uploads):
                await asyncio.sleep(0.05)
