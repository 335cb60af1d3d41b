"""Bandwidth limits over several transfers."""

import asyncio

import pytest

from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit


class Time:
    """A clock that moves with each sleep. Sleepers wake in the order of their times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self._sleep = asyncio.sleep
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        until_s = self.now_s + delay_s
        await self._sleep(delay_s / 1000)
        self.now_s = max(self.now_s, until_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


async def spend(bandwidth: BandwidthLimit, pieces: int, piece_bytes: int) -> None:
    for _ in range(pieces):
        await bandwidth.spend(piece_bytes)


async def test_limit_applies_to_all_transfers_that_share_it(clock: Time) -> None:
    bandwidth = BandwidthLimit(100, clock=clock)
    await asyncio.gather(*(spend(bandwidth, 5, 20) for _ in range(4)))
    # The first piece was received before the first call, and needs no wait.
    assert clock.now_s == pytest.approx(103.8)


async def test_lower_of_two_limits_applies(clock: Time) -> None:
    whole = BandwidthLimit(100, clock=clock)
    slow, fast = BandwidthLimit(10, whole, clock=clock), BandwidthLimit(1000, whole, clock=clock)
    await spend(slow, 2, 10)
    assert clock.now_s == pytest.approx(101.0)
    await spend(fast, 10, 100)
    assert clock.now_s == pytest.approx(101.0 + 9.0, abs=0.2)


async def test_pause_allows_no_burst(clock: Time) -> None:
    bandwidth = BandwidthLimit(100, clock=clock)
    await bandwidth.spend(100)
    clock.now_s += 1000
    before_s = clock.now_s
    await spend(bandwidth, 2, 100)
    assert clock.now_s - before_s == pytest.approx(1.0)


async def test_without_limit_nothing_waits(clock: Time) -> None:
    await spend(UNLIMITED, 10, 10**12)
    await spend(BandwidthLimit(None, BandwidthLimit(clock=clock), clock=clock), 10, 10**12)
    assert clock.now_s == 100.0


@pytest.mark.parametrize(
    ("bandwidth", "piece_bytes"),
    [
        (BandwidthLimit(), None),
        (BandwidthLimit(400), 100),
        (BandwidthLimit(400, BandwidthLimit(80)), 20),
        (BandwidthLimit(None, BandwidthLimit(80)), 20),
        (BandwidthLimit(0.5), 1),
    ],
)
def test_piece_is_a_quarter_second_of_lowest_limit(bandwidth: BandwidthLimit, piece_bytes: int | None) -> None:
    assert bandwidth.piece_bytes == piece_bytes
