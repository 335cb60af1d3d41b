"""An object is deleted only if it is still the one whose owner was checked, on stores that support the condition."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from export_worker.errors import LeaseLostError, StorageUnavailableError
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.step_context import require_lease
from support import s3_server
from support.s3_server import Call, Refusal, S3Proxy


@pytest.fixture
def direct(endpoint: str) -> Iterator[Any]:
    """A client whose calls do not pass the proxy."""
    with s3_server.s3_client(endpoint) as client:
        yield client


@pytest.fixture
def target(direct: Any) -> Target:
    """A manifest of the first generation of an export."""
    target = Target(s3_server.new_bucket(direct), "e/_manifest.json", "e", "application/json")
    write(direct, target, b"first")
    return target


@pytest.fixture
def store(proxy: S3Proxy) -> Iterator[S3Store]:
    with s3_server.s3_client(proxy.endpoint_url, attempts=1) as client, ThreadPoolExecutor(1) as executor:
        yield S3Store(client, executor)


def write(client: Any, target: Target, body: bytes) -> None:
    client.put_object(**target.address, Body=body, Metadata={"export-id": target.export_id})


def bodies(client: Any, target: Target) -> list[bytes]:
    """Returns the contents of all objects in the bucket."""
    listed = client.list_objects_v2(Bucket=target.bucket).get("Contents", [])
    return [client.get_object(Bucket=target.bucket, Key=item["Key"])["Body"].read() for item in listed]


def deletes(proxy: S3Proxy) -> list[bool]:
    """Returns for each delete whether it had a condition."""
    return ["if-match" in call.headers for call in proxy.calls if call.name == "delete_object"]


async def test_delete_has_the_etag_of_the_checked_object(
    store: S3Store, proxy: S3Proxy, direct: Any, target: Target
) -> None:
    assert await store.remove(target)
    assert (bodies(direct, target), deletes(proxy)) == ([], [True])


async def test_delete_that_arrives_after_a_takeover_leaves_the_new_object(
    store: S3Store, proxy: S3Proxy, direct: Any, target: Target
) -> None:
    """The request was sent in time, but S3 executes it after another worker has written the object again."""
    is_lost = False

    def check() -> None:
        if is_lost:
            raise LeaseLostError("export e was taken over in step 2")

    def rule(call: Call) -> None:
        nonlocal is_lost
        if call.name == "delete_object" and not is_lost:
            is_lost = True
            write(direct, target, b"second")

    proxy.rule = rule
    with require_lease(check), pytest.raises(LeaseLostError):
        await store.remove(target)
    assert bodies(direct, target) == [b"second"]


async def test_holder_of_the_lease_deletes_an_object_that_changed_meanwhile(
    store: S3Store, proxy: S3Proxy, direct: Any, target: Target
) -> None:
    def rule(call: Call) -> None:
        if call.name == "delete_object" and len(deletes(proxy)) == 1:
            write(direct, target, b"second")

    proxy.rule = rule
    assert await store.remove(target)
    assert (bodies(direct, target), deletes(proxy)) == ([], [True, True])


@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (400, "InvalidArgument"), (412, "PreconditionFailed")],
    ids=["unsupported", "invalid", "ETags compared in another way"],
)
async def test_store_that_refuses_the_condition_is_asked_once(
    store: S3Store, proxy: S3Proxy, direct: Any, target: Target, status: int, code: str
) -> None:
    proxy.rule = lambda call: (
        Refusal(status, code) if call.name == "delete_object" and "if-match" in call.headers else None
    )
    assert await store.remove(target)
    write(direct, target, b"second")
    assert await store.remove(target)
    assert (bodies(direct, target), deletes(proxy)) == ([], [True, False, False])


async def test_store_that_ignores_the_condition_deletes(
    store: S3Store, proxy: S3Proxy, direct: Any, target: Target
) -> None:
    proxy.dropped = frozenset({"if-match"})
    assert await store.remove(target)
    assert bodies(direct, target) == []


async def test_outage_does_not_turn_conditions_off(store: S3Store, proxy: S3Proxy, direct: Any, target: Target) -> None:
    proxy.rule = lambda call: Refusal(503, "SlowDown") if call.name == "delete_object" else None
    with pytest.raises(StorageUnavailableError):
        await store.remove(target)
    proxy.rule = lambda _: None
    assert await store.remove(target)
    assert deletes(proxy) == [True, True]


async def test_put_replaces_an_object_of_the_same_export_conditionally(
    store: S3Store, proxy: S3Proxy, direct: Any, target: Target
) -> None:
    await store.put(target, b"new")
    assert (bodies(direct, target), deletes(proxy)) == ([b"new"], [True])
