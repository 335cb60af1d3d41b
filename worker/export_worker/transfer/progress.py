"""Counts how far the transfer of one export is. Counting is cheap; percentages and rates are computed when read."""

import time
from collections import deque
from collections.abc import Callable

from export_worker.contract.status import Progress

READINGS = 6
"""The rate covers the last readings, this many. With one a second, a pause is forgotten after five seconds."""


class TransferProgress:
    """Counts the bytes that are received and the parts and files that are stored.

    Args:
        files_total: Number of files of the export.
        files_done: How many of them earlier attempts have stored.
        bytes_done: Source bytes of those.
        clock: Returns seconds that never decrease.
    """

    def __init__(
        self, files_total: int, files_done: int, bytes_done: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._files_total = files_total
        self._files_done = files_done
        self._bytes_before = bytes_done
        self._parts_done = 0
        self._file_bytes: int | None = None
        self._file_done_bytes = 0
        self._moved_bytes = 0
        self._clock = clock
        self._readings = deque([(clock(), 0)], maxlen=READINGS)

    def start_file(self, file_bytes: int | None, recovered_bytes: int = 0, recovered_parts: int = 0) -> None:
        """Starts the next file.

        Args:
            file_bytes: Length of its source, if known.
            recovered_bytes: How many of them an earlier attempt has stored.
            recovered_parts: Number of parts that hold those bytes.
        """
        self._file_bytes = file_bytes
        self._file_done_bytes = recovered_bytes
        self._parts_done += recovered_parts

    def add_bytes(self, count_bytes: int) -> None:
        """Counts bytes that were received from the source."""
        self._file_done_bytes += count_bytes
        self._moved_bytes += count_bytes

    def add_part(self) -> None:
        """Counts a part that S3 has accepted, or a file that was stored in one piece."""
        self._parts_done += 1

    def add_small_file(self, source_bytes: int) -> None:
        """Counts a file that was stored in one piece while others are stored."""
        self._moved_bytes += source_bytes
        self._bytes_before += source_bytes
        self._parts_done += 1
        self._files_done += 1

    def finish_file(self, source_bytes: int) -> None:
        """Counts a file that is stored in S3, including what earlier attempts received of it."""
        self._files_done += 1
        self._bytes_before += source_bytes
        self._file_done_bytes = 0

    def read(self) -> Progress:
        """Returns the progress now. Call it at even intervals: the rate is measured between readings."""
        total = self._file_bytes if self._files_total == 1 else None
        done = self._bytes_before + self._file_done_bytes
        return Progress(
            percent=round(100.0 * done / total, 1) if total else None,
            bytes_done=done,
            bytes_total=total,
            files_done=self._files_done,
            files_total=self._files_total,
            parts_done=self._parts_done,
            bytes_per_s=self._rate(),
        )

    def _rate(self) -> int:
        now_s, (then_s, then_bytes) = self._clock(), self._readings[0]
        self._readings.append((now_s, self._moved_bytes))
        return round((self._moved_bytes - then_bytes) / max(now_s - then_s, 1e-3))
