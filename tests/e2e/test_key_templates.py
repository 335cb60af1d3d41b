"""Key templates with fields of the request's metadata, through a real worker and a real S3 server."""

import json
from typing import Any

import pytest

from export_worker.contract.status import Phase, Status
from support import worker_site
from support.worker_site import Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
TEMPLATE = "dt={date}/team={metadata.team}/{export_id}/{file_name}"


def use_template(site: Site, template: str) -> None:
    site.settings = {
        "s3": {"bucket": site.bucket, "endpoint_url": site.s3_url, "prefix": "landing/", "key_template": template}
    }


async def export(site: Site, metadata: dict[str, Any]) -> Status:
    body = {"connection": "gio", "export": SEGMENT, "metadata": metadata}
    async with worker_site.worker(site):
        status = await worker_site.export(site, json.dumps(body))
    assert status.phase is Phase.SUCCEEDED, status.error
    return status


def prefix_of(status: Status, team: str) -> str:
    return f"landing/dt={status.created_at.date().isoformat()}/team={team}/{status.export_id}/"


@pytest.mark.parametrize(
    ("metadata", "team"),
    [
        ({"team": "ads", "order": "42"}, "ads"),
        ({"team": "../../../etc/passwd"}, "%2E.%2F..%2F..%2Fetc%2Fpasswd"),
        ({"team": "广告 \u202e\n{export_id}"}, "广告%20%E2%80%AE%0A%7Bexport_id%7D"),
        ({"order": "42"}, "__HIVE_DEFAULT_PARTITION__"),
    ],
)
async def test_value_of_metadata_is_one_segment_of_every_key(site: Site, metadata: dict[str, Any], team: str) -> None:
    use_template(site, TEMPLATE)
    status = await export(site, metadata)
    prefix = prefix_of(status, team)
    names = [*(item.file_name for item in status.objects), "_manifest.json", "_SUCCESS"]
    assert sorted(site.objects()) == sorted(prefix + name for name in names)
    assert status.manifest == f"s3://{site.bucket}/{prefix}_manifest.json"
    assert status.metadata == metadata
