"""The gate of a store: decides whether a failure of S3 is one of the export or of the store."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from export_worker.credentials import Redactor
from export_worker.errors import (
    IntegrityError,
    StorageError,
    StoragePausedError,
    StorageRefusedError,
    StorageUnavailableError,
)
from export_worker.s3.client import CallLimits, build_client
from export_worker.s3.endpoints import Endpoint
from export_worker.s3.sessions import late_credentials, session_for
from export_worker.s3.settings import BUCKET_DEFAULTS
from export_worker.s3.store_check import StoreCheck
from export_worker.worker.store_gates import FAILED_EXPORTS_MAX, StoreGate
from support import s3_server
from support.s3_server import Refusal, S3Proxy

REFUSED = StorageRefusedError("put_object on bucket b: AccessDenied, HTTP 403")
AWAY = StorageUnavailableError("put_object on bucket b: SlowDown, HTTP 503")


SECRET = "canary-token-of-a-store"


@pytest.fixture
def gate(proxy: S3Proxy, own_bucket: str) -> Iterator[StoreGate]:
    """A gate whose check passes the proxy. It was not checked yet, and nothing checks it at intervals."""
    session = session_for(BUCKET_DEFAULTS, s3_server.REGION)
    limits = CallLimits(attempts=1)
    client = build_client(Endpoint(s3_server.REGION, proxy.endpoint_url), 1, limits=limits, session=session)
    with ThreadPoolExecutor(1) as executor:
        check = StoreCheck(client, late_credentials(session), executor, bucket=own_bucket, prefix="")
        redactor = Redactor()
        redactor.add(SECRET)
        yield StoreGate("s3", check, redactor=redactor)
    client.close()


async def judged(gate: StoreGate, error: StorageError, export_id: str = "e1", since_s: float | None = None) -> bool:
    """Returns whether the store is to blame for a failure of an export."""
    found = await gate.judge(export_id, error, time.monotonic() if since_s is None else since_s)
    assert found is error or type(found) is StoragePausedError
    return found is not error


async def test_failure_is_one_of_the_export_if_the_check_succeeds(gate: StoreGate) -> None:
    gate.open()
    assert not await judged(gate, AWAY)
    assert gate.admits


async def test_problem_of_a_store_has_no_secret(gate: StoreGate, proxy: S3Proxy) -> None:
    """Redis and the health pages have the problem."""
    gate.open()
    proxy.rule = lambda _: Refusal(403, SECRET)
    assert await judged(gate, REFUSED)
    assert gate.problem is not None
    assert "***" in gate.problem
    assert SECRET not in gate.problem


async def test_refusal_is_repeated_once_if_the_check_succeeds(gate: StoreGate) -> None:
    """Its cause may have passed between the call and the check, and a refusal ends the export."""
    gate.open()
    assert [await judged(gate, REFUSED, export_id) for export_id in ("e1", "e1", "e2", "e1")] == [
        True,
        False,
        True,
        False,
    ]
    assert gate.admits


@pytest.mark.parametrize("error", [REFUSED, AWAY])
async def test_store_is_to_blame_if_the_check_fails_too(gate: StoreGate, proxy: S3Proxy, error: StorageError) -> None:
    gate.open()
    proxy.rule = lambda _: Refusal(403, "ExpiredToken")
    assert await judged(gate, error)
    assert not gate.admits
    assert gate.problem is not None
    assert "ExpiredToken" in gate.problem


async def test_damaged_object_is_not_blamed_on_the_store(gate: StoreGate, proxy: S3Proxy) -> None:
    gate.open()
    assert not await judged(gate, IntegrityError("the checksums differ"))
    assert proxy.calls == []


async def test_store_that_fails_several_exports_in_a_row_is_to_blame(gate: StoreGate) -> None:
    gate.open()
    for _ in range(5):
        assert not await judged(gate, AWAY, "e0"), "one export proves nothing"
    blamed = [await judged(gate, AWAY, f"e{number}") for number in range(1, FAILED_EXPORTS_MAX)]
    assert blamed == [False] * (FAILED_EXPORTS_MAX - 2) + [True]
    assert not gate.admits


async def test_success_between_failures_resets_their_count(gate: StoreGate) -> None:
    gate.open()
    for number in range(2 * FAILED_EXPORTS_MAX):
        assert not await judged(gate, AWAY, f"e{number}")
        gate.open()


async def test_failure_that_began_before_the_store_was_usable_again_uses_no_attempt(
    gate: StoreGate, proxy: S3Proxy
) -> None:
    """The call was refused, then the rights came back, and only then the failure is judged."""
    gate.open()
    proxy.rule = lambda _: Refusal(403, "ExpiredToken")
    before_s = time.monotonic()
    await judged(gate, REFUSED, "e1")
    proxy.reset()
    gate.open()
    assert await judged(gate, AWAY, "e2", before_s)
    assert gate.admits
    assert not await judged(gate, AWAY, "e2")


async def test_first_check_after_the_start_makes_no_refusal_free_twice(gate: StoreGate) -> None:
    """A worker that runs no transfers checks its store only after a failure."""
    since_s = time.monotonic()
    assert await judged(gate, REFUSED, since_s=since_s)
    assert not await judged(gate, REFUSED, since_s=since_s)
