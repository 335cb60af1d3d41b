"""Nothing is written to or deleted from S3 for an export whose lease is lost."""

from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from export_worker.errors import LeaseLostError
from export_worker.s3.client import CallLimits, build_client
from export_worker.s3.endpoints import Endpoint
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.step_context import require_lease
from support import s3_server
from support.s3_server import Call, Lost, S3Proxy

CHANGES = ["put_object", "create_multipart_upload", "complete_multipart_upload", "delete_object"]


@pytest.fixture
def client(proxy: S3Proxy) -> Iterator[Any]:
    """A client as a worker builds it: it repeats a failed call by itself."""
    client = build_client(Endpoint(s3_server.REGION, proxy.endpoint_url), 2, limits=CallLimits(attempts=3))
    yield client
    client.close()


class Lease:
    """A lease that is lost before the change with this number."""

    def __init__(self, lost_at: int) -> None:
        self._left = lost_at

    def check(self) -> None:
        """See `HeldStep.check`."""
        self._left -= 1
        if self._left < 0:
            raise LeaseLostError("export e was taken over in step 2")

    def lose(self) -> None:
        """The lease is lost from now on."""
        self._left = 0


async def changes(store: S3Store, bucket: str) -> None:
    """Makes one change of each kind, in the order of `CHANGES`. The last put replaces an earlier object."""
    await store.put(Target(bucket, "e/a.csv", "e", "text/csv"), b"bytes")
    upload = await store.begin(Target(bucket, "e/b.csv", "e", "text/csv"))
    await upload.complete([await upload.send(1, bytearray(b"bytes"))])
    await store.put(Target(bucket, "e/a.csv", "e", "text/csv"), b"others")


async def lost_before(change: Callable[[], Awaitable[None]], lease: Lease) -> None:
    with require_lease(lease.check), pytest.raises(LeaseLostError):
        await change()


@pytest.mark.parametrize("number", range(5))
async def test_lost_lease_prevents_next_change_of_s3(proxy: S3Proxy, client: Any, number: int) -> None:
    bucket = s3_server.new_bucket(client)
    proxy.reset()
    with ThreadPoolExecutor(1) as executor:
        store = S3Store(client, executor)
        await lost_before(lambda: changes(store, bucket), Lease(number))
    # The put that replaces an object is refused first, then the old object is deleted.
    done = [*CHANGES[:3], "put_object", "delete_object"][:number]
    assert [call.name for call in proxy.calls if call.name in CHANGES] == done


REPEATED = [
    "put_object",
    "create_multipart_upload",
    "complete_multipart_upload",
    "delete_object",
    "abort_multipart_upload",
]


@pytest.mark.parametrize("name", REPEATED)
async def test_lost_lease_prevents_repetition_of_a_call(proxy: S3Proxy, client: Any, name: str) -> None:
    """The answer to the first attempt is lost. Before botocore repeats the call, another worker has the export."""
    bucket = s3_server.new_bucket(client)
    lease = Lease(10_000)

    def lose_answer(call: Call) -> Lost | None:
        if call.name != name:
            return None
        lease.lose()
        return Lost()

    proxy.reset()
    proxy.rule = lose_answer
    with ThreadPoolExecutor(1) as executor:
        store = S3Store(client, executor)
        await lost_before(lambda: changes_and_abort(store, bucket), lease)
    assert [call.name for call in proxy.calls].count(name) == 1


async def changes_and_abort(store: S3Store, bucket: str) -> None:
    await changes(store, bucket)
    upload = await store.begin(Target(bucket, "e/c.csv", "e", "text/csv"))
    await upload.abort()


async def test_without_lease_check_every_change_is_made(proxy: S3Proxy, client: Any) -> None:
    bucket = s3_server.new_bucket(client)
    with ThreadPoolExecutor(1) as executor:
        await changes(S3Store(client, executor), bucket)
    assert client.get_object(Bucket=bucket, Key="e/a.csv")["Body"].read() == b"others"
