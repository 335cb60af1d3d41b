"""The minimum rate of a download: what counts as waiting for the source, and when a download is interrupted."""

import asyncio
import time

import pytest

from export_worker.errors import DownloadInterruptedError
from export_worker.transfer import minimum_rate
from export_worker.transfer.minimum_rate import MinimumRate

WINDOW_S = 0.4


@pytest.fixture(autouse=True)
def _short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minimum_rate, "WINDOW_S", WINDOW_S)


async def received(count_bytes: int = 1, after_s: float = 0.0) -> int:
    await asyncio.sleep(after_s)
    return count_bytes


async def drip(rate: MinimumRate, pause_s: float, pieces: int, piece_bytes: int = 1) -> None:
    for _ in range(pieces):
        rate.count(await rate.wait_for(received(piece_bytes, pause_s)))


async def test_source_that_sends_nothing_is_interrupted_while_the_worker_waits() -> None:
    rate = MinimumRate(1000.0)
    with pytest.raises(DownloadInterruptedError, match=r"0 bytes in 0\.4 s; transfer\.min_kib_per_s requires 400"):
        await rate.wait_for(received(after_s=30))


async def test_waits_of_a_drip_are_added() -> None:
    with pytest.raises(DownloadInterruptedError):
        await drip(MinimumRate(1000.0), 0.05, 100)


async def test_source_at_the_minimum_rate_is_not_interrupted() -> None:
    await drip(MinimumRate(1000.0), 0.05, 30, 100)


async def test_bytes_that_are_counted_during_a_wait_extend_it() -> None:
    rate = MinimumRate(1000.0)

    async def fill() -> int:
        for _ in range(10):
            await asyncio.sleep(0.1)
            rate.count(200)
        return 2000

    assert await rate.wait_for(fill()) == 2000


async def test_bytes_during_a_wait_that_are_too_few_do_not_extend_it() -> None:
    rate, started_s = MinimumRate(1000.0), time.monotonic()

    async def fill() -> None:
        while True:
            await asyncio.sleep(0.05)
            rate.count(5)

    with pytest.raises(DownloadInterruptedError):
        await rate.wait_for(fill())
    assert time.monotonic() - started_s < 20


async def test_time_between_waits_does_not_count() -> None:
    rate = MinimumRate(1000.0)
    for _ in range(4):
        await drip(rate, 0.01, 1)
        await asyncio.sleep(WINDOW_S / 2)


async def test_minimum_of_zero_accepts_any_source() -> None:
    await drip(MinimumRate(0.0), 2 * WINDOW_S, 1)


async def test_timeout_of_the_source_keeps_its_own_error() -> None:
    async def fail() -> int:
        raise TimeoutError("of the socket")

    with pytest.raises(TimeoutError, match="of the socket"):
        await MinimumRate(1000.0).wait_for(fail())


async def test_long_waits_of_a_computed_download_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minimum_rate, "COMPUTING_S", WINDOW_S / 2)
    await drip(MinimumRate(1000.0, is_computed=True), WINDOW_S, 3)


async def test_short_waits_of_a_computed_download_count() -> None:
    with pytest.raises(DownloadInterruptedError):
        await drip(MinimumRate(1000.0, is_computed=True), 0.05, 100)
