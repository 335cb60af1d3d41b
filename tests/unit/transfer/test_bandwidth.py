import asyncio

import pytest

from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit
from export_worker.transfer.progress import TransferProgress


class Time:
    """A clock that a sleep moves on; sleepers wake in the order of their hours."""

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


async def test_a_ceiling_holds_over_all_that_share_it(clock: Time) -> None:
    bandwidth = BandwidthLimit(100, clock=clock)
    await asyncio.gather(*(spend(bandwidth, 5, 20) for _ in range(4)))
    # The first piece was on its way before, and is free.
    assert clock.now_s == pytest.approx(103.8)


async def test_the_narrower_ceiling_decides(clock: Time) -> None:
    whole = BandwidthLimit(100, clock=clock)
    slow, fast = BandwidthLimit(10, whole, clock=clock), BandwidthLimit(1000, whole, clock=clock)
    await spend(slow, 2, 10)
    assert clock.now_s == pytest.approx(101.0)
    await spend(fast, 10, 100)
    assert clock.now_s == pytest.approx(101.0 + 9.0, abs=0.2)


async def test_a_pause_earns_nothing(clock: Time) -> None:
    bandwidth = BandwidthLimit(100, clock=clock)
    await bandwidth.spend(100)
    clock.now_s += 1000
    before_s = clock.now_s
    await spend(bandwidth, 2, 100)
    assert clock.now_s - before_s == pytest.approx(1.0)


async def test_without_a_ceiling_nothing_waits(clock: Time) -> None:
    await spend(UNLIMITED, 10, 10**12)
    await spend(BandwidthLimit(None, BandwidthLimit(clock=clock), clock=clock), 10, 10**12)
    assert clock.now_s == 100.0


@pytest.mark.parametrize(
    ("pace", "piece_bytes"),
    [
        (BandwidthLimit(), None),
        (BandwidthLimit(400), 100),
        (BandwidthLimit(400, BandwidthLimit(80)), 20),
        (BandwidthLimit(None, BandwidthLimit(80)), 20),
        (BandwidthLimit(0.5), 1),
    ],
)
def test_pieces_are_small_enough_to_look_even(bandwidth: BandwidthLimit, piece_bytes: int | None) -> None:
    assert bandwidth.piece_bytes == piece_bytes


def test_the_rate_is_that_of_the_last_readings() -> None:
    now_s = 0.0
    gauge = TransferProgress(1, 0, 0, clock=lambda: now_s)
    gauge.start_file(1_000_000, recovered_bytes=500_000, recovered_parts=2)
    rates = []
    for moved_bytes in [100, 100, 100, 0, 0, 0, 0, 0, 0, 0]:
        now_s += 1.0
        gauge.add_bytes(moved_bytes)
        rates.append(gauge.read().bytes_per_s)
    assert rates[:3] == [100, 100, 100], "what an earlier attempt has stored is not counted"
    assert rates[-1] == 0


def test_files_and_parts_are_counted_on() -> None:
    gauge = TransferProgress(3, 1, 50)
    gauge.start_file(None)
    gauge.add_bytes(7)
    gauge.add_part()
    told = gauge.read()
    assert (told.bytes_done, told.files_done, told.parts_done) == (57, 1, 1)
    gauge.finish_file(10)
    told = gauge.read()
    assert (told.bytes_done, told.files_done, told.percent, told.bytes_total) == (60, 2, None, None)


def test_a_single_file_of_known_length_has_a_share() -> None:
    gauge = TransferProgress(1, 0, 0)
    gauge.start_file(200, recovered_bytes=50, recovered_parts=1)
    gauge.add_bytes(50)
    told = gauge.read()
    assert (told.percent, told.bytes_done, told.bytes_total, told.parts_done) == (50.0, 100, 200, 1)
