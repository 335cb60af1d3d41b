"""SeaweedFS as the worker's store."""

from concurrent.futures import ThreadPoolExecutor

from export_worker.s3.objects import Target
from export_worker.s3.store import ListedPart, S3Store
from support.s3_server import new_bucket, s3_client


async def test_seaweedfs_lists_parts_without_checksums(seaweed_url: str) -> None:
    with s3_client(seaweed_url) as client, ThreadPoolExecutor(2) as executor:
        store, target = S3Store(client, executor), Target(new_bucket(client), "e/a.csv", "e", "text/csv")
        upload = await store.begin(target)
        sent = await upload.send(1, bytearray(b"part"))
        listed = await store.parts(target, upload.upload_id)
        await upload.abort()
    assert listed == [ListedPart(1, 4, sent.etag, None)]
