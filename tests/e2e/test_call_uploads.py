"""Uploads with `export-worker call`: their length, charset and source, and empty bodies. Against ThinkingData."""

import asyncio
import json
from pathlib import Path

import pytest

from export_worker.simulator.world import RequestRecord, World
from support import secret_canaries
from support.worker_site import CommandResult, Site

ADD = ("upload-add", "--param", "projectId=102", "--param", "displayName=上传", "--param", "mainColumnName=#account_id")
MODIFY = ("upload-modify", "--param", "projectId=102", "--param", "clusterId=1600")
IDS = "用户1\r\n用户2\r\n"


@pytest.fixture
def site(site: Site) -> Site:
    """A site with a connection to ThinkingData."""
    connection = {"platform": "thinkingdata", "base_url": site.platform_url, "token": secret_canaries.TOKEN}
    site.settings = {"connections": {"ta": connection}}
    return site


async def call(site: Site, *arguments: str) -> CommandResult:
    return await asyncio.to_thread(site.command, "call", "ta", *arguments, "--json")


def uploads(world: World) -> list[RequestRecord]:
    return [record for record in world.requests if "import-id-cluster" in record.target]


def states_length(record: RequestRecord) -> bool:
    """Whether an upload had its length in its head, and was not sent in chunks."""
    names = {name.lower() for name in record.headers}
    assert len(names & {"content-length", "transfer-encoding"}) == 1
    return "content-length" in names


async def test_file_is_sent_with_its_length(site: Site, world: World, tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_text(IDS, encoding="utf-8")
    ran = await call(site, *ADD, "--body", str(file))
    assert json.loads(ran.stdout)["uploadNum"] == 2, ran
    assert states_length(uploads(world)[0])


async def test_object_in_s3_is_sent_with_its_length(site: Site, world: World) -> None:
    ids = b"".join(b"id-%09d\r\n" % number for number in range(700_000))
    client = site.s3()
    client.put_object(Bucket=site.bucket, Key="landed/用户 1.csv", Body=ids)
    client.close()
    ran = await call(site, *ADD, "--body", f"s3://{site.bucket}/landed/用户 1.csv")
    assert json.loads(ran.stdout)["uploadNum"] == 700_000, ran
    assert states_length(uploads(world)[0])


async def test_body_is_converted_to_utf_8(site: Site, world: World, tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_bytes(IDS.encode("utf-16"))
    ran = await call(site, *ADD, "--body", str(file), "--charset", "UTF-16LE")
    assert json.loads(ran.stdout)["uploadNum"] == 2, ran
    assert not states_length(uploads(world)[0])


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf\r\n"])
async def test_empty_body_asks_first(site: Site, world: World, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ids.csv"
    file.write_bytes(content)
    refused = await call(site, *MODIFY, "--body", str(file))
    assert refused.status == 2
    assert "import-id-cluster-modify sends an empty body, and there is no terminal" in refused.stdout
    assert uploads(world) == []
    assert (await call(site, *MODIFY, "--body", str(file), "--yes")).status == 0
    assert len(uploads(world)) == 1


@pytest.mark.parametrize(
    ("body", "options", "field", "message"),
    [
        ("s3://BUCKET/missing.csv", (), "body", "there is no object s3://"),
        ("s3://BUCKET", (), "body", "must be like s3://bucket/key"),
        ("s3://BUCKET/packed.csv.gz", (), "body", "is gzip"),
        ("s3://BUCKET/packed.csv.gz", ("--charset", "rot13"), "--charset", "must be a charset"),
        ("/nowhere/ids.csv", (), "body", "cannot read /nowhere/ids.csv"),
    ],
)
async def test_wrong_body_is_refused_before_any_request(
    site: Site, world: World, body: str, options: tuple[str, ...], field: str, message: str
) -> None:
    client = site.s3()
    client.put_object(Bucket=site.bucket, Key="packed.csv.gz", Body=b"\x1f\x8b\x08\0")
    client.close()
    ran = await call(site, *ADD, "--body", body.replace("BUCKET", site.bucket), *options)
    [problem] = json.loads(ran.stdout)["error"]["fields"]
    assert (ran.status, problem["field"]) == (2, field)
    assert message in problem["message"]
    assert world.requests_total == 0
