"""Counts of bytes, parts and files, and the rate."""

from export_worker.transfer.progress import TransferProgress


def test_rate_covers_last_readings_only() -> None:
    now_s = 0.0
    progress = TransferProgress(1, 0, 0, clock=lambda: now_s)
    progress.start_file(1_000_000, recovered_bytes=500_000, recovered_parts=2)
    rates = []
    for received_bytes in [100, 100, 100, 0, 0, 0, 0, 0, 0, 0]:
        now_s += 1.0
        progress.add_bytes(received_bytes)
        rates.append(progress.read().bytes_per_s)
    assert rates[:3] == [100, 100, 100], "the bytes of an earlier attempt are not counted"
    assert rates[-1] == 0


def test_files_and_parts_are_added_to_those_of_earlier_attempts() -> None:
    progress = TransferProgress(3, 1, 50)
    progress.start_file(None)
    progress.add_bytes(7)
    progress.add_part()
    shown = progress.read()
    assert (shown.bytes_done, shown.files_done, shown.parts_done) == (57, 1, 1)
    progress.finish_file(10)
    shown = progress.read()
    assert (shown.bytes_done, shown.files_done, shown.percent, shown.bytes_total) == (60, 2, None, None)


def test_single_file_of_known_length_has_percent() -> None:
    progress = TransferProgress(1, 0, 0)
    progress.start_file(200, recovered_bytes=50, recovered_parts=1)
    progress.add_bytes(50)
    shown = progress.read()
    assert (shown.percent, shown.bytes_done, shown.bytes_total, shown.parts_done) == (50.0, 100, 200, 1)
