"""Key templates with fields of the request's metadata, through a real worker and a real S3 server."""

import json

from export_worker.contract.status import Phase
from support import worker_site
from support.worker_site import Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
TEMPLATE = "dt={date}/team={metadata.team}/{export_id}/{file_name}"
CASES = [
    ({"team": "ads", "order": "42"}, "ads"),
    ({"team": "../../../etc/passwd"}, "%2E.%2F..%2F..%2Fetc%2Fpasswd"),
    ({"team": "广告 \u202e\n{export_id}"}, "广告%20%E2%80%AE%0A%7Bexport_id%7D"),
    ({"order": "42"}, "__HIVE_DEFAULT_PARTITION__"),
]
"""Metadata of a request, and its part of the key."""


async def test_value_of_metadata_is_one_segment_of_every_key(site: Site) -> None:
    site.settings = {
        "s3": {"bucket": site.bucket, "endpoint_url": site.s3_url, "prefix": "landing/", "key_template": TEMPLATE}
    }
    expected = []
    async with worker_site.worker(site):
        for metadata, team in CASES:
            body = {"connection": "gio", "export": SEGMENT, "metadata": metadata}
            status = await worker_site.export(site, json.dumps(body))
            assert status.phase is Phase.SUCCEEDED, status.error
            assert status.metadata == metadata
            prefix = f"landing/dt={status.created_at.date().isoformat()}/team={team}/{status.export_id}/"
            assert status.manifest == f"s3://{site.bucket}/{prefix}_manifest.json"
            names = [*(item.file_name for item in status.objects), "_manifest.json", "_SUCCESS"]
            expected += [prefix + name for name in names]
    assert sorted(site.objects()) == sorted(expected)
